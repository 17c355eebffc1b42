"""Who writes a pseudo-label: per sample, the global or the local model, the more confident one.

F2 to F7 of docs/methods/fedlabel.md.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor

from fedlabels.clients._selection import class_thresholds
from fedlabels.cohort import Batch, Client, Cohort, FitRequest, Net, Tree, UnlabeledTraining
from fedlabels.cohort.checks import check_above, check_between, check_choices
from fedlabels.losses import Selection, select


@dataclass(frozen=True)
class ExpertClient(UnlabeledTraining, Client):
    """A client whose unlabeled samples are labeled by one of two experts.

    Parameters
    ----------
    score : {"variance", "inverse_entropy", "max_prob"}
        Confidence h (F3).
    expert : {"confident", "global", "local"}
        Ablation: force one expert.
    threshold : float
        Least confidence beta of a pseudo-label, in [0, 1]; strict unless ``inclusive``.
    threshold_rule : {"fixed", "flexmatch", "freematch"}
        Thresholds per class from one pass over the shard with the chosen experts.
    temperature : float
        Of the experts and of both sides of the consistency term, > 0.
    """

    score: str = "variance"
    expert: str = "confident"
    threshold: float = 0.95
    threshold_rule: str = "fixed"
    temperature: float = 1.0

    without: ClassVar[tuple[str, ...]] = ("epochs",)  # phases of their own length: steps

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "score": ("variance", "inverse_entropy", "max_prob"),
            "expert": ("confident", "global", "local"),
            "threshold_rule": ("fixed", "flexmatch", "freematch"),
        }
        check_choices(self, choices)
        check_above(self, 0, ("temperature",))
        check_between(self, 0, 1, ("threshold",))

    @property
    def inclusive(self) -> bool:
        """Whether a confidence that equals the threshold passes."""
        return False

    def select(self, net: Net, fixed: Any, batch: Batch) -> Selection:
        """Let the experts label a batch in evaluation mode (F2 to F7).

        Parameters
        ----------
        fixed : mapping of str to Tree
            The experts ``received`` and ``local``, and ``rule`` as `rule` returns it.
        """
        probs = [
            (net.at(fixed[name])(batch.weak) / self.temperature).softmax(-1)
            for name in ("received", "local")
        ]
        return select(
            *probs,
            threshold=fixed["rule"]["threshold"],
            score=cast("Any", self.score),
            expert=cast("Any", self.expert),
            threshold_inclusive=self.inclusive,
            local_allowed=fixed["rule"]["has_expert"],
            rows=batch.rows,
        )

    def rule(self, cohort: Cohort, request: FitRequest, local: Tree | None) -> Tree:
        """Return each client's ``threshold``, and whether it ``has_expert`` of its own.

        Parameters
        ----------
        local : Tree or None
            The local expert; None where it is still in training, and thresholds are fixed.
        """
        labels, samples = cohort.samples("labeled").count, cohort.samples("unlabeled")
        # a mask decides, not the comparison of two forward passes that "must" be equal
        has_expert = cohort.map(lambda n: (n > 0) & (self.steps != 0), labels)
        received = request.shared["model"]
        like = next(v for v in received.values() if v.is_floating_point())
        beta = cohort.map(lambda n: like.new_full((), self.threshold) + 0 * n, labels)
        if self.threshold_rule == "fixed" or local is None:
            return {"threshold": beta, "has_expert": has_expert}
        net = cohort.net("model")

        def probabilities(fixed: Any, batch: Batch) -> Tensor:
            return self.select(net, fixed, batch).selected

        own = {"local": local, "rule": {"threshold": beta, "has_expert": has_expert}}
        probs = cohort.predict(
            probabilities, samples, view="weak", own=own, shared={"received": received}
        )

        def thresholds(probs: Tensor, count: Tensor) -> Tensor:
            return class_thresholds(self.threshold_rule, self.threshold, probs, count)

        beta = cohort.map(thresholds, probs, samples.count)
        return {"threshold": beta, "has_expert": has_expert}
