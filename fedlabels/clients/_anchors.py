"""FedSA's anchors as a regularizer of other clients' labeled steps.

Zhou et al., AAAI 2025, arXiv 2501.05496: S6 of docs/methods/fedsa.md. Only where the server sends
anchors beside the model (``strategy=fedlabel_anchors``) is there anything of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from fedlabels.cohort import Batch, FitRequest, Reads, Tree, View
from fedlabels.losses import cross_entropy, fedsa_loss

ANCHORS = "anchors"
_COEFFICIENTS = ("lambda_reg", "mu_mcl", "nu_cc")
_SETTINGS = {name: f"anchor-{name.replace('_', '-')}" for name in _COEFFICIENTS}
ANCHOR_READS = Reads(tuple(_SETTINGS.values()), (ANCHORS,))
"""What `anchored` reads: a client whose ``fit`` calls it has this as its ``reads``."""


@dataclass(frozen=True)
class AnchoredLoss:
    """Cross-entropy with the three terms of FedSA, in place of the cross-entropy alone.

    Parameters
    ----------
    coefficients : mapping of str to float
        Of the three terms, >= 0.
    """

    coefficients: Mapping[str, float]

    def __call__(self, view: View, batch: Batch, fixed: Any) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy of every sample, and the objective of the batch."""
        features, sent = view.features(batch.x), fixed[ANCHORS]
        logits = view.head(features)
        loss = fedsa_loss(
            features,
            logits,
            batch.y,
            sent["vectors"],
            view.head(sent["vectors"]),
            margin=sent["margin"],
            mean=batch.mean,
            **self.coefficients,
        )
        return cross_entropy(logits, batch.y), loss.total


class Objective(NamedTuple):
    """A loss, and what its steps must find in ``fixed``: the anchors, and their margin."""

    loss: AnchoredLoss
    shared: Mapping[str, Tree]


def anchored(request: FitRequest) -> Objective | None:
    """Return the objective with the server's anchors; None where it sent none."""
    if ANCHORS not in request.shared:
        return None
    coefficients = {name: float(request.settings[key]) for name, key in _SETTINGS.items()}
    return Objective(AnchoredLoss(coefficients), {ANCHORS: request.shared[ANCHORS]})
