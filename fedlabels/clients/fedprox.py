"""FedProx's client: FedAvg's with a proximal term.

Li et al., MLSys 2020, arXiv 1812.06127.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from fedlabels.clients._anchors import ANCHOR_READS
from fedlabels.clients.base import labeled_metrics
from fedlabels.clients._private import OwnNorm
from fedlabels.cohort import Cohort, FitRequest, FitResult, Reads, Tree, View
from fedlabels.cohort.checks import check_at_least
from fedlabels.losses import proximal_term

PROXIMAL_MU = "proximal-mu"  # as Flower's FedProx sends it


@dataclass(frozen=True)
class FedProx(OwnNorm):
    """SGD on labeled samples with ``mu/2 * ||v - w||**2`` over all trainable tensors (A2).

    Tensors that stay with the client (``bn_policy``) are not held back: nobody sent them.

    Parameters
    ----------
    mu : float or None
        Coefficient, >= 0; 0 is FedAvg. None takes the server's ``proximal-mu``, or 0.01.
    """

    mu: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, ("mu",))

    @property
    def reads(self) -> Reads:
        """What it reads beside the model: the coefficient, and anchors."""
        return replace(ANCHOR_READS, settings=(*ANCHOR_READS.settings, PROXIMAL_MU))

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of the terms that it sends: the model."""
        return ("model",)

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples, held back to the received model."""
        sent = request.settings.get(PROXIMAL_MU, 0.01)
        mu = float(sent if self.mu is None else self.mu)
        net = cohort.net("model")
        own = self.private(net.layout)
        names = tuple(name for name in net.parameters if name not in own)

        def penalty(view: View, fixed: Mapping[str, Tree]) -> Tensor:
            return proximal_term(view.tree, fixed["received"], mu, names)

        tree, sums = self.train_labeled(cohort, request, penalty if mu else None)
        weight = cohort.samples("labeled").count
        return self.result(cohort, tree, weight, labeled_metrics(sums))
