"""The client contract: what a method writes for ONE device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.nn import functional

from fedlabels.cohort.layout import Layout
from fedlabels.cohort.types import DataSpec, FitRequest, FitResult, Ratio, Reads, Tree

if TYPE_CHECKING:
    from fedlabels.cohort.batches import Batch
    from fedlabels.cohort.cohort import Cohort

UNKNOWN = -1  # label of a sample whose class nobody knows: nobody is scored on it


@dataclass(frozen=True)
class Client:
    """Base of all clients: a frozen dataclass whose fields are its settings.

    ``fit`` strings together primitives of the cohort. The functions it gives to a primitive see
    ONE client's tensors; outside primitives it only hands values on. The same code then runs
    looped (one client, plain modules), stacked (many clients, vmap) and on a device.

    Notes
    -----
    Every further exchange that a strategy names is a method of that name with the signature of
    ``fit``. ``stackable = False`` makes a client always run looped. In stackable functions there
    is no ``if`` on tensors, no ``.item()``, no boolean indexing, no ``one_hot`` and no in-place
    change of anything.
    """

    stackable: ClassVar[bool] = True

    @property
    def personal(self) -> bool:
        """Whether it evaluates with a model of its own; the run then asks every client to."""
        return False

    @property
    def sees_all_labels(self) -> bool:
        """Whether the simulation reveals the labels of all its samples (the upper bound)."""
        return False

    def work(self, labeled: int, unlabeled: int) -> int:
        """Estimate how long a client trains, in samples; workers get about the same each.

        By default its labeled samples where the setting ``training.epochs`` is given (all of them
        where it sees all labels), and the same for every client where a round is a number of steps.
        It changes no result.

        Parameters
        ----------
        labeled, unlabeled : int
            What the client holds, in samples.
        """
        if getattr(self, "epochs", None) is None:
            return 0
        return labeled + (unlabeled if self.sees_all_labels else 0)

    @property
    def reads(self) -> Reads:
        """What it reads beside the model; it holds for the ``fit`` of the same class."""
        return Reads()

    @property
    def makes(self) -> tuple[str, ...] | None:
        """Names of the terms that the ``fit`` of the same class sends; None does not say."""
        return None

    def nets(self, model: nn.Module, spec: DataSpec) -> dict[str, nn.Module]:
        """Return the nets by name.

        Parameters
        ----------
        model : torch.nn.Module
            The configured model, freshly built.
        spec : DataSpec
            Shape of a sample and number of classes.
        """
        return {"model": model}

    def private(self, layout: Layout) -> frozenset[str]:
        """Return the names of tensors that never leave the client."""
        return frozenset()

    def fit(self, cohort: "Cohort", request: FitRequest) -> FitResult:
        """Train; what the exchange ``"train"`` runs."""
        raise NotImplementedError(f"{type(self).__name__} does not implement fit")

    def evaluate(self, cohort: "Cohort", request: FitRequest) -> FitResult:
        """Score the received model on the client's own test samples."""
        return FitResult(metrics=score(cohort, request.shared["model"], "test"))

    def shard_loss(self, cohort: "Cohort", request: FitRequest) -> FitResult:
        """Measure the loss of a model on the client's labeled samples; see `sample_loss`."""
        return FitResult(metrics=sample_loss(cohort, request))


def score(cohort: "Cohort", tree: Tree, part: str, *, own: bool = False) -> dict[str, Ratio]:
    """Return loss and accuracy on the samples of known class of a part, as sums and counts.

    Parameters
    ----------
    cohort : Cohort
        The clients.
    tree : Tree
        Weights, the same for all or one set per client.
    part : str
        Part of the clients' samples.
    own : bool
        Whether the weights are per-client values.
    """
    net, samples = cohort.net("model"), cohort.samples(part)

    def step(carry: Tree, fixed: Mapping[str, Tree], batch: "Batch") -> tuple[Tree, Tree]:
        logits = net.at(fixed["model"])(batch.x)
        loss = functional.cross_entropy(logits, batch.y, reduction="none", ignore_index=UNKNOWN)
        hit = (logits.argmax(-1) == batch.y).to(loss.dtype)
        known = (batch.y != UNKNOWN).to(loss.dtype)
        return carry, {"loss": batch.sum(loss), "hit": batch.sum(hit), "n": batch.sum(known)}

    batches = cohort.batches(samples, size=512, epochs=1, views=("plain",), purpose="score")
    given = {"own" if own else "shared": {"model": tree}}
    _, sums = cohort.scan(step, {}, batches, **given)
    return {
        "loss": Ratio(sums["loss"], sums["n"]),
        "accuracy": Ratio(sums["hit"], sums["n"]),
    }


def sample_loss(cohort: "Cohort", request: FitRequest) -> dict[str, Ratio]:
    """Measure cross-entropy on the labeled samples: evaluation mode, plain view.

    Parameters
    ----------
    cohort : Cohort
        The clients.
    request : FitRequest
        With the model among ``own``, if every client has one of its own, else among ``shared``.
        The setting ``probe`` asks for so many samples only: the same ones for the same round.

    Returns
    -------
    dict of str to Ratio
        ``loss`` and ``square``, of the cross-entropy and its square, in nats, and ``samples``: how
        many labeled samples the client has, measured or not.
    """
    net, samples = cohort.net("model"), cohort.samples("labeled")
    probe = int(request.settings.get("probe", 0))
    plan: dict[str, int] = {"size": probe, "steps": 1} if probe else {"size": 512, "epochs": 1}
    batches = cohort.batches(samples, views=("plain",), purpose="loss", **plan)

    def step(carry: Tree, fixed: Mapping[str, Tree], batch: "Batch") -> tuple[Tree, Tree]:
        logits = net.at(fixed["model"])(batch.x)
        loss = functional.cross_entropy(logits, batch.y, reduction="none").double()
        return carry, {"loss": batch.sum(loss), "square": batch.sum(loss * loss), "n": batch.n}

    if "model" in request.own:
        _, sums = cohort.scan(step, {}, batches, own={"model": request.own["model"]})
    else:
        _, sums = cohort.scan(step, {}, batches, shared={"model": request.shared["model"]})
    one = cohort.map(lambda n: 0 * n + 1, samples.count)
    return {
        "loss": Ratio(sums["loss"], sums["n"]),
        "square": Ratio(sums["square"], sums["n"]),
        "samples": Ratio(samples.count, one),
    }
