"""FedLabel: the server side of selective knowledge assimilation.

Cho, Joshi, Dimitriadis: "Local or Global: Selective Knowledge Assimilation for Federated Learning
with Limited Labels", ICCV 2023, arXiv 2307.08809. Equations F11a and F11b of
docs/methods/fedlabel.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from fedlabels.aggregation.fedlabel import merge_flute
from fedlabels.errors import ConfigError
from fedlabels.rounds import wire
from fedlabels.rounds.job import Arrays, Need
from fedlabels.strategies.base import CohortStrategy, Merged
from fedlabels.strategies.support import Collected

Variant = Literal["paper", "flute", "joint"]
LOCAL, STUDENT = "local", "student"


@dataclass(frozen=True)
class FedLabelSettings:
    """Settings of FedLabel's server; the variant must be the client's.

    Parameters
    ----------
    variant : {"paper", "flute", "joint"}
        What the clients send: one merged model (``"paper"``, and ``"joint"`` of later benchmarks),
        or the labeled and the unlabeled model (``"flute"``, the official code).
    """

    variant: str = "paper"

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ConfigError(
                f"variant must be one of {', '.join(get_args(Variant))}, got {self.variant!r}"
            )


class FedLabel(CohortStrategy):
    """FedAvg over merged models (F11a, r_k is the weight), or the two means of F11b.

    In ``"flute"`` the term ``"local"`` has weight 1 and ``"student"`` has weight v_k, the samples
    that passed (1 if none did). Floating buffers are averaged like parameters, integer buffers
    stay the server's.

    Parameters
    ----------
    settings : FedLabelSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedLabelSettings

    def __init__(self, settings: FedLabelSettings | None = None) -> None:
        super().__init__()
        self.variant = (settings or FedLabelSettings()).variant
        both: Mapping[str, Need] = {LOCAL: "sum", STUDENT: "sum"}
        self.needs = both if self.variant == "flute" else {wire.MODEL: "sum"}

    def expected(self, term: str) -> Arrays | None:
        """Return the model's layout for either of the two models, too."""
        return super().expected(wire.MODEL if term in (LOCAL, STUDENT) else term)

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Compute the new model by F11a or F11b."""
        if self.variant != "flute":
            return super().merge(round_index, collected, server)
        terms = collected.usable(LOCAL), collected.usable(STUDENT)
        if terms == (None, None):
            return Merged(None)
        local, student = ({} if term is None else term.value(keep=server) for term in terms)
        return Merged(
            {
                name: merge_flute(value, local.get(name), student.get(name))
                for name, value in server.items()
                if value.dtype.kind == "f"
            }
        )
