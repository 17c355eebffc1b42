"""FedProx's client: FedAvg's with a proximal term.

Li et al., MLSys 2020, arXiv 1812.06127.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from clients._checks import check_at_least
from clients._labeled import labeled_metrics
from clients._private import OwnNorm
from fedlabels.cohort import Cohort, FitRequest, FitResult, Tree, View
from fedlabels.losses import proximal_term


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

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Train on the labeled samples, held back to the received model."""
        sent = request.settings.get("proximal-mu", 0.01)
        mu = float(sent if self.mu is None else self.mu)
        net = cohort.net("model")
        own = self.private(net.layout)
        names = tuple(name for name in net.parameters if name not in own)

        def penalty(view: View, fixed: Mapping[str, Tree]) -> Tensor:
            return proximal_term(view.tree, fixed["received"], mu, names)

        tree, sums = self.train_labeled(cohort, request, penalty if mu else None)
        weight = cohort.samples("labeled").count
        return self.result(cohort, tree, weight, labeled_metrics(sums))
