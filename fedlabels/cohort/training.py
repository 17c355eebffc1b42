"""How a client trains in a round: settings that have one name and one meaning for every method."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from fedlabels.cohort.checks import (
    check_above,
    check_at_least,
    check_between,
    check_choices,
    require,
)
from fedlabels.cohort.layout import Layout
from fedlabels.cohort.optimizers import SGD, Adam, Optimizer
from fedlabels.cohort.types import FitRequest
from fedlabels.effect import ABOVE_0, Only, only


@dataclass(frozen=True)
class Training:
    """Settings of local training on labeled samples: the group ``training``.

    A client has them by having this class among its bases. Its own defaults are its method's; the
    names in ``without`` it has no use for, and they are no settings of it.

    Parameters
    ----------
    steps : int or None
        Gradient steps a round, >= 0, each batch by a fresh shuffle; exclusive with ``epochs``.
    epochs : float or None
        Passes over the labeled samples a round, >= 0. With a part of one a round is that part of
        the client's batches, rounded up, so at least one; the next round goes on where it ended
        (rounds without the client count as well).
    batch_size : int
        Labeled samples a step, >= 1.
    lr : float
        Learning rate, > 0.
    optimizer : {"sgd", "adam"}
        Its state begins anew in every round.
    momentum : float
        Of SGD, in [0, 1).
    nesterov : bool
        Nesterov's form of the momentum.
    weight_decay : float
        L2 coefficient, >= 0, added to the gradient.
    decay_biases : bool
        Whether it counts for tensors of one axis: biases, and gains of normalization and
        standardization.
    clip : float or None
        Largest global norm of a gradient, > 0.
    agc : float or None
        Adaptive gradient clipping: largest norm of a unit's gradient over that of its weights, > 0;
        W2 of docs/methods/fedwon.md. The last layer is left alone.
    schedule : {"constant", "cosine"}
        Of the learning rate over the rounds of the run; ``cosine`` is half a cosine down to 0.
    warmup_rounds : int
        Rounds, >= 0, over which the rate rises in equal parts to ``lr``, before the schedule.
    """

    group: ClassVar[str] = "training"
    without: ClassVar[tuple[str, ...]] = ()

    steps: int | None = 10
    epochs: int | float | None = None
    batch_size: int = 10
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_biases: bool = True
    clip: float | None = None
    agc: float | None = None
    schedule: str = "constant"
    warmup_rounds: int = 0

    counts: ClassVar[tuple[Only, ...]] = (
        only("momentum", "nesterov", "agc", optimizer="sgd"),
        only("nesterov", momentum=ABOVE_0),
        only("decay_biases", weight_decay=ABOVE_0),
    )

    def __post_init__(self) -> None:
        check_choices(self, {"optimizer": ("sgd", "adam"), "schedule": ("constant", "cosine")})
        check_above(self, 0, ("lr", "clip", "agc"))
        check_at_least(self, 0, ("weight_decay", "steps", "epochs", "warmup_rounds"))
        check_at_least(self, 1, ("batch_size",))
        check_between(self, 0, 1, ("momentum",))
        require(self.momentum < 1, f"training.momentum must be in [0, 1), got {self.momentum}")
        require(
            self.epochs is None or math.isfinite(self.epochs),
            f"training.epochs must be finite, got {self.epochs}",
        )
        for name in self.without:
            require(
                getattr(self, name) is None,
                f"training.{name} has no use for this client ({type(self).__name__}), which trains "
                f"by {', '.join(f'training.{key}' for key in training_names(type(self)))}; leave "
                "it out",
            )
        for name, other in (("steps", "epochs"), ("epochs", "steps")):
            require(
                other not in self.without or getattr(self, name) is not None,
                f"training.{name} must be a number for this client ({type(self).__name__}), which "
                f"has no training.{other}, got None",
            )
        require(
            (self.steps is None) != (self.epochs is None),
            "give exactly one of training.steps and training.epochs (the other null), got "
            f"{self.steps} and {self.epochs}",
        )

    def learning_rate(self, request: FitRequest, lr: float | None = None) -> float:
        """Return the learning rate of a round.

        Parameters
        ----------
        request : FitRequest
            The round.
        lr : float or None
            What is scheduled, > 0; None is ``self.lr``.
        """
        rate = self.lr if lr is None else lr
        if self.warmup_rounds:
            rate *= min(1.0, request.round / self.warmup_rounds)
        if self.schedule == "constant":
            return rate
        past = request.round - 1 - self.warmup_rounds
        progress = past / max(request.rounds - self.warmup_rounds, 1)
        return rate * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))

    def make_optimizer(
        self, request: FitRequest, layout: Layout, lr: float | None = None
    ) -> Optimizer:
        """Return the optimizer of a round for a net.

        It knows the tensors that adaptive clipping leaves alone, those of the last layer, and
        those that do not decay.

        Parameters
        ----------
        request : FitRequest
            The round.
        layout : Layout
            Of the net.
        lr : float or None
            As for `learning_rate`.
        """
        biases = () if self.decay_biases else layout.values()
        decay_skip = frozenset(entry.name for entry in biases if len(entry.shape) < 2)
        rate = self.learning_rate(request, lr)
        if self.optimizer == "adam":
            return Adam(rate, weight_decay=self.weight_decay, clip=self.clip, decay_skip=decay_skip)
        return SGD(
            rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            clip=self.clip,
            agc=self.agc,
            agc_skip=layout.head,
            decay_skip=decay_skip,
        )


@dataclass(frozen=True)
class UnlabeledTraining(Training):
    """Settings of local training on labeled and unlabeled samples: the group ``training``.

    Parameters
    ----------
    steps_unlabeled : int or None
        Steps on unlabeled samples a round, >= 0; None is ``steps``.
    batch_unlabeled : int or None
        Unlabeled samples a step, >= 1; None is ``batch_size``.
    lr_unlabeled : float or None
        Learning rate of steps on unlabeled samples, > 0; None is ``lr``.
    """

    steps_unlabeled: int | None = None
    batch_unlabeled: int | None = None
    lr_unlabeled: float | None = None

    group: ClassVar[str] = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, ("steps_unlabeled",))
        check_at_least(self, 1, ("batch_unlabeled",))
        check_above(self, 0, ("lr_unlabeled",))

    @property
    def unlabeled_rows(self) -> int:
        """Unlabeled samples a step."""
        return self.batch_size if self.batch_unlabeled is None else self.batch_unlabeled


def training_names(kind: type) -> tuple[str, ...]:
    """Name the settings of the group ``training`` that a client has a use for.

    Parameters
    ----------
    kind : type
        A client class; one that does not have `Training` among its bases has none.
    """
    return tuple(name for name in _shared(kind) if name not in kind.without)  # type: ignore[attr-defined]


def own_names(kind: type) -> tuple[str, ...]:
    """Name the settings of the group ``client``: those that are the method's alone."""
    shared = _shared(kind)
    return tuple(entry.name for entry in fields(kind) if entry.name not in shared)


def _shared(kind: type) -> list[str]:
    bases = [base for base in (Training, UnlabeledTraining) if issubclass(kind, base)]
    return list(dict.fromkeys(entry.name for base in bases for entry in fields(base)))
