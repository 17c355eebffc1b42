"""FedAvg's client: SGD on the labeled samples, and the two bounds of every comparison.

McMahan et al., AISTATS 2017, arXiv 1602.05629.
"""

from dataclasses import dataclass

from fedlabels.clients._anchors import ANCHOR_READS
from fedlabels.clients.base import LabeledClient, labeled_metrics
from fedlabels.cohort import Cohort, FitRequest, FitResult, Reads
from fedlabels.cohort.checks import check_choices


@dataclass(frozen=True)
class FedAvg(LabeledClient):
    """SGD on labeled samples; the model goes up, weighted by their number.

    Parameters
    ----------
    role : {"labeled_only", "fully_labeled"}
        ``labeled_only`` ignores unlabeled samples: the lower bound of a semi-supervised method.
        ``fully_labeled`` has the labels of all samples revealed (in simulation only): the upper
        bound.
    """

    role: str = "labeled_only"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, {"role": ("labeled_only", "fully_labeled")})

    @property
    def sees_all_labels(self) -> bool:
        """Whether the simulation reveals the hidden labels."""
        return self.role == "fully_labeled"

    @property
    def reads(self) -> Reads:
        """What it reads beside the model: anchors."""
        return ANCHOR_READS

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: the model."""
        return ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples; a client without any returns the model with weight 0."""
        tree, sums = self.train_labeled(cohort, request)
        weight = cohort.samples("labeled").count
        return self.result(cohort, tree, weight, labeled_metrics(sums))
