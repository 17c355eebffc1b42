"""Schemas of the groups of settings that are not methods: data, backend, devices, sweeps."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedlabels.effect import ABOVE_0, GIVEN, Need, Only, only, other_than
from fedlabels.errors import ConfigError

TEST, PERSONAL = "test_accuracy", "personal_accuracy"
MEANS = ("test_balanced_accuracy", "test_f1_macro", "test_f1_weighted")  # over the classes
AUC = "test_auc"
METRICS = ("auto", TEST, PERSONAL, *MEANS, AUC)
TRACKERS = ("none", "tensorboard", "wandb", "mlflow")

_BELOW_1 = Need(" below 1", lambda value: value < 1)


@dataclass
class DatasetConfig:
    """Which data: reader, folder, preset of the weak and strong views, reader's own options.

    Parameters
    ----------
    name : str
        A reader, from ``digits`` to ``huggingface``.
    root : str or None
        Folder of the data, the only place that is searched; None searches ``$FEDLABELS_DATA``, then
        ``/usr/share/datasets``.
    views : {"none", "digits", "fashion", "natural", "timeseries"}
        Preset of the weak and strong views.
    view_options : dict
        What differs from the preset.
    options : dict
        The reader's own options.
    """

    name: str = "digits"
    root: str | None = None
    views: str = "none"
    view_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    counts: ClassVar[tuple[Only, ...]] = (only("root", name=other_than("digits")),)


@dataclass
class BackendConfig:
    """Where and how clients are simulated; changes nothing of what is simulated.

    Parameters
    ----------
    name : {"ray", "processes", "serial"}
        Workers on Ray, workers as plain processes of this machine, or all in this process.
    num_workers : int or None
        Workers, >= 1; None is one a GPU, or without GPUs one a core that may be used.
    gpus_per_worker : float or None
        GPUs of a Ray worker, >= 0; None is 1 where Ray sees a GPU, else 0.
    execution : {"auto", "looped", "stacked", "graphed"}
        One by one, many as one model, CUDA graphs; ``auto`` is ``looped`` on a CPU, else measured.
    threads : int
        torch threads of a worker, >= 1; another number changes the last bits.
    portable : bool
        Whether kernels are pinned to AVX2, so that x86-64 machines agree in the last bits; slower.
    """

    name: str = "ray"
    num_workers: int | None = None
    gpus_per_worker: float | None = None
    num_gpus: int | None = None
    address: str = "local"
    device: str = "auto"
    execution: str = "auto"
    stack_size: int | None = None
    block_size: int | None = None
    lanes: int = 4
    tf32: bool = True
    threads: int = 1
    portable: bool = False

    counts: ClassVar[tuple[Only, ...]] = (
        only("gpus_per_worker", "num_gpus", "address", name="ray"),
        only("num_workers", name=other_than("serial")),
        only("tf32", device=other_than("cpu")),
        only("stack_size", execution=("auto", "stacked")),
        only("lanes", execution=("auto", "graphed")),
    )


@dataclass
class EarlyStopConfig:
    """Stop when a figure has reached a target, or has not risen for some evaluations.

    Parameters
    ----------
    metric : {"auto", "test_accuracy", "personal_accuracy", "test_balanced_accuracy", \
            "test_f1_macro", "test_f1_weighted", "test_auc"}
        Which figure: of the global model, or the mean over the clients' own models; ``auto`` is
        ``test_accuracy`` where there is a global model that is tested, else ``personal_accuracy``.
    target : float or None
        Stop as soon as it is reached, in (0, 1].
    patience : int or None
        Stop after so many evaluations in a row without a new best, >= 1.
    """

    metric: str = "auto"
    target: float | None = None
    patience: int | None = None

    counts: ClassVar[tuple[Only, ...]] = (only("metric", target=GIVEN, patience=GIVEN),)

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(
                f"early_stop.metric must be one of {', '.join(METRICS)}, got '{self.metric}'"
            )
        if self.target is not None and not 0 < self.target <= 1:
            raise ConfigError(
                f"early_stop.target is an accuracy in (0, 1], got {self.target}; 60 % is 0.6"
            )
        if self.patience is not None and self.patience < 1:
            raise ConfigError(
                f"early_stop.patience must be >= 1 evaluations, or null to go on, got"
                f" {self.patience}"
            )

    @property
    def wanted(self) -> bool:
        """Whether anything can stop the run."""
        return self.target is not None or self.patience is not None


@dataclass
class ProfileConfig:
    """Where the time of every round goes, and the course of one of them; None is the second.

    Parameters
    ----------
    enabled : bool
        Whether times are taken; ``callbacks=profile`` sets it.
    """

    enabled: bool = False
    trace_round: int | None = None

    counts: ClassVar[tuple[Only, ...]] = (only("trace_round", enabled=True),)


@dataclass
class DecompositionConfig:
    """What the loss is made of, every few rounds: which variant, on how many samples.

    Parameters
    ----------
    enabled : bool
        Whether the loss is decomposed; ``callbacks=decomposition`` sets it.
    """

    enabled: bool = False
    variant: str = "full"
    every: int = 10
    probe_samples: int = 500
    server_samples: int = 1000
    labels: str = "labeled"

    counts: ClassVar[tuple[Only, ...]] = (
        only("variant", "every", "probe_samples", "server_samples", "labels", enabled=True),
        only("probe_samples", variant="probe"),
        only("server_samples", variant="server"),
    )


@dataclass
class CallbacksConfig:
    """What is called while a run goes on; may differ when it is resumed."""

    profile: ProfileConfig = field(default_factory=ProfileConfig)
    decomposition: DecompositionConfig = field(default_factory=DecompositionConfig)


@dataclass
class TrackerConfig:
    """Where rounds.csv is mirrored: which tracker, its place, online or not; docs/trackers.md.

    Parameters
    ----------
    name : {"none", "tensorboard", "wandb", "mlflow"}
        Which tracker.
    uri : str or None
        Folder, store or server; None is a place in the run folder.
    mode : {"offline", "online"}
        Whether W&B uploads while the run goes on.
    project : str
        W&B's project, MLflow's experiment.
    """

    name: str = "none"
    uri: str | None = None
    mode: str = "offline"
    project: str = "fedlabels"

    counts: ClassVar[tuple[Only, ...]] = (
        only("uri", name=other_than("none")),
        only("project", name=("wandb", "mlflow")),
        only("mode", name="wandb"),
    )


@dataclass
class LongTailConfig:
    """Thins out classes: smallest over largest class, and which class is large."""

    factor: float = 1.0
    order: str = "natural"

    counts: ClassVar[tuple[Only, ...]] = (only("order", factor=_BELOW_1),)


@dataclass
class LabelNoiseConfig:
    """Turns labels of the clients wrong: kind, mean rate, spread over the clients."""

    kind: str = "none"
    rate: float = 0.0
    concentration: float | None = None

    counts: ClassVar[tuple[Only, ...]] = (only("concentration", kind=other_than("none")),)


@dataclass
class ShiftConfig:
    """Feature shift of images: synthetic domains, or shifts of single clients."""

    preset: str = "none"
    sigma_max: float = 0.1
    share: float = 1.0

    counts: ClassVar[tuple[Only, ...]] = (
        only("sigma_max", preset="noise"),
        only("share", preset="corruptions"),
    )


@dataclass
class ArchitecturesConfig:
    """Further models beside ``model``, and who has which; none is one model for all.

    Parameters
    ----------
    models : list
        Names of models, or dicts of ``name`` and the model's settings.
    """

    models: Any = field(default_factory=list)
    assign: str = "cyclic"

    counts: ClassVar[tuple[Only, ...]] = (only("assign", models=GIVEN),)


@dataclass
class TestShardsConfig:
    """Test samples of each client's own: size of all over that of the test set, and which.

    Parameters
    ----------
    by : str or None
        None is ``owner`` for partition=natural where the data say whose the test samples are, else
        ``classes``.
    """

    share: float = 0.0
    by: str | None = None

    counts: ClassVar[tuple[Only, ...]] = (only("by", share=ABOVE_0),)


@dataclass
class DeployConfig:
    """Real devices: how long to wait, what an update may be at most, what the server knows.

    Parameters
    ----------
    min_clients : int
        Fewest devices that a round begins with, >= 1.
    connect_seconds : float
        How long the first round waits for ``per_round`` devices, >= 0.
    describe_seconds : float
        Deadline for a new device to say who it is, > 0.
    round_seconds : float
        Deadline of a round, > 0: who is later does not count.
    lost_rounds : int
        So many rounds, one after the other, without any usable answer or new model end the run,
        >= 1.
    final_evaluation : bool
        Whether devices test the last model, in an exchange of its own.
    max_update_norm : float or None
        Largest Euclidean distance of a term from what was sent, > 0. None is 1000 times the sum of
        the norm of what was sent and the root of its number of entries.
    max_examples : float or None
        Largest weight of a device, > 0, in all terms and entries. None is 1000 times the samples
        that it said it has when it joined.
    partitions : bool
        Whether devices hold partitions of ``dataset``, dealt as in the simulator.
    mods : list of str
        Flower's ``fixed_clipping``, ``message_size``, ``arrays_size`` around what a client sends,
        outermost first; in simulations, too.
    data : dict
        Instead of data at the server: ``shape``, ``class_names`` or ``num_classes``, ``mean``,
        ``std`` and ``pixels``.
    """

    min_clients: int = 1
    connect_seconds: float = 120.0
    describe_seconds: float = 300.0
    round_seconds: float = 3600.0
    lost_rounds: int = 3
    final_evaluation: bool = True
    max_update_norm: float | None = None
    max_examples: float | None = None
    partitions: bool = False
    mods: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepConfig:
    """Many settings: where, how many side by side, what goes with a method; see docs/sweeps.md.

    Parameters
    ----------
    name : str
        Folder below ``runs/sweeps``.
    dir : str or None
        Another folder.
    jobs : int or None
        Cells side by side on this machine, >= 1; None is one a core that may be used, or fewer
        where ``backend.num_workers`` gives each several.
    address : str or None
        A Ray cluster instead, ``auto`` or HOST:PORT; the folder must be on a shared disk.
    cpus : float
        CPUs of a cell on Ray, > 0.
    per_method : dict
        Method -> list of overrides, for what one method alone should have.
    metric : str
        Column of ``rounds.csv`` by which its methods are compared.
    baseline : str or None
        Method that the others are compared with; None takes the first.
    last : int
        Evaluations at the end of a run whose mean is its result, >= 1.
    """

    name: str = "sweep"
    dir: str | None = None
    jobs: int | None = None
    address: str | None = None
    cpus: float = 1.0
    per_method: dict[str, Any] = field(default_factory=dict)
    metric: str = "test_accuracy"
    baseline: str | None = None
    last: int = 1

    counts: ClassVar[tuple[Only, ...]] = (only("cpus", address=GIVEN),)
