"""What clients report of the samples they pseudo-labeled, and thresholds for them per class."""

from typing import Any

import torch
from torch import Tensor

from fedlabels.cohort import (
    Batch,
    Cohort,
    PseudoLabels,
    Ratio,
    Sums,
    Tree,
    difference,
    parameters_of,
    square_norm,
)
from fedlabels.losses import (
    Selection,
    UnlabeledLoss,
    flexmatch_counts,
    flexmatch_threshold,
    freematch_init,
    freematch_threshold,
    freematch_update,
    selection_counts,
)


def class_thresholds(rule: str, threshold: float, probs: Tensor, count: Tensor) -> Tensor:
    """Return a threshold per class from one pass over a client's shard.

    Parameters
    ----------
    rule : {"flexmatch", "freematch"}
        The rule of FlexMatch (arXiv 2110.08263) or FreeMatch (arXiv 2205.07246).
    threshold : float
        FlexMatch's upper bound, in [0, 1].
    probs : Tensor
        (rows, classes), the pseudo-labels' probabilities.
    count : Tensor
        How many of the rows are real; the first ones.
    """
    rows = torch.arange(probs.shape[0], device=probs.device) < count
    if rule == "flexmatch":
        counts = flexmatch_counts(probs, threshold=threshold, rows=rows)
        return flexmatch_threshold(counts, tau=threshold, num_unlabeled=count).threshold
    state = freematch_init(probs.shape[1], dtype=probs.dtype, device=probs.device)
    return freematch_threshold(freematch_update(state, probs, momentum=0.0, rows=rows))


def selection_sums(chosen: Selection, out: UnlabeledLoss, batch: Batch) -> dict[str, Any]:
    """Return what one unlabeled batch adds to the sums, with the pseudo-labels to be scored."""
    counts = selection_counts(chosen, batch.rows)
    is_local = (chosen.expert == 1).unsqueeze(-1)
    inner = torch.where(is_local, chosen.selected, chosen.discarded).argmax(-1)
    outer = torch.where(is_local, chosen.discarded, chosen.selected).argmax(-1)
    marks = PseudoLabels(
        batch.index,
        chosen.pseudo_label,
        chosen.keep,
        chosen.expert,
        {"global": outer, "local": inner},
    )
    return {
        "rows": batch.n,
        "pass": counts.n_pass,
        "local": counts.n_local,
        "agree": counts.n_agree,
        "ratio": counts.ratio,
        "loss": out.total,
        "steps": (out.n_pass > 0).to(torch.int64),
        "pseudo": marks,
    }


def unlabeled_metrics(sums: Sums) -> dict[str, Ratio]:
    """Return the diagnostics of the unlabeled steps, as sums and counts."""
    return {
        "loss_unlabeled": Ratio(sums["loss"], sums["steps"]),
        "pass_rate": Ratio(sums["pass"], sums["rows"]),
        "local_share": Ratio(sums["local"], sums["pass"]),
        "agreement": Ratio(sums["agree"], sums["pass"]),
        "ratio": Ratio(sums["ratio"], sums["pass"]),
    }


def movement_metrics(
    cohort: Cohort, received: Tree, local: Tree, student: Tree, start: Tree | None
) -> dict[str, Ratio]:
    """Measure how far, and how much the same way, the two phases moved.

    Parameters
    ----------
    received : Tree
        Where the labeled phase began.
    local, student : Tree
        Where the phases ended, per client.
    start : Tree or None
        Where the unlabeled phase began, per client; None is ``received``.
    """
    net = cohort.net("model")

    def measure(local: Tree, student: Tree, start: Tree) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        left = difference(parameters_of(local, net), received)
        right = difference(parameters_of(student, net), start)
        norms = square_norm(left).sqrt().double(), square_norm(right).sqrt().double()
        dot = torch.stack([(left[k] * right[k]).sum() for k in left]).sum().double()
        product = norms[0] * norms[1]
        return *norms, dot / product.clamp_min(1e-30), (product > 0).double()

    if start is None:
        figures = cohort.map(lambda one, two: measure(one, two, received), local, student)
    else:
        figures = cohort.map(measure, local, student, start)
    first, second, cosine, both = figures
    one = cohort.map(lambda n: 0 * n + 1, both)
    return {
        "delta_labeled": Ratio(first, one),
        "delta_unlabeled": Ratio(second, one),
        "delta_cosine": Ratio(cosine, both),
    }
