"""FedBN, SiloBN and FixBN: federated averaging that treats batch normalization by itself.

Li et al.: "FedBN", ICLR 2021, arXiv 2102.07623; Andreux et al.: "Siloed Federated Learning for
Multi-Centric Histopathology Datasets", DART 2020, arXiv 2008.07424; Zhong et al.: "Making Batch
Normalization Great in Federated Deep Learning", arXiv 2303.06530.
"""

from dataclasses import dataclass

from fedlabels.clients._anchors import ANCHOR_READS
from fedlabels.clients.base import labeled_metrics
from fedlabels.clients._private import OwnNorm
from fedlabels.cohort import Cohort, FitRequest, FitResult, Reads
from fedlabels.cohort.checks import check_choices


@dataclass(frozen=True)
class FedBN(OwnNorm):
    """SGD on labeled samples; what the policy says of batch normalization stays with the client.

    Parameters
    ----------
    bn_policy : {"global", "local", "silo", "fix"}
        See `OwnNorm`; ``local`` is FedBN, ``silo`` SiloBN, ``fix`` FixBN.
    weight : {"labeled", "uniform"}
        Clients count by their number of labeled samples, or alike (FedBN's code) if they have any.
    """

    bn_policy: str = "local"
    weight: str = "labeled"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self, {"weight": ("labeled", "uniform")})

    @property
    def reads(self) -> Reads:
        """What it reads beside the model: anchors."""
        return ANCHOR_READS

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: the model."""
        return ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples; a client without any has weight 0."""
        tree, sums = self.train_labeled(cohort, request)
        weight = cohort.samples("labeled").count
        if self.weight == "uniform":
            weight = cohort.map(lambda n: (n > 0).to(n.dtype), weight)
        return self.result(cohort, tree, weight, labeled_metrics(sums))
