"""FedTGP: a small network on the server learns global prototypes that keep classes apart.

Zhang et al.: "FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive
Learning", AAAI 2024, arXiv 2401.03230. T1 to T3 of docs/methods/fedtgp.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlabels.aggregation import Prototypes, prototype_mean
from fedlabels.effect import ABOVE_0, Only, only
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.losses import TgpForm, generate, generator_loss, tgp_margin
from fedlabels.rounds.job import Arrays, Need
from fedlabels.seeds import generator
from fedlabels.strategies.base import Merged
from fedlabels.strategies.support import Collected, State
from fedlabels.strategies.support.prototypes import (
    PRESENT,
    PROTOTYPES,
    VECTORS,
    PrototypeStrategy,
    no_prototypes,
    spread_figures,
)

Tree = dict[str, Tensor]


@dataclass(frozen=True)
class FedTGPSettings:
    """Settings of FedTGP's server.

    Parameters
    ----------
    tau : float
        Upper bound of the margin, > 0.
    server_epochs : int
        Passes over the uploaded prototypes a round, >= 0.
    server_lr : float
        Learning rate of the generator, > 0.
    server_batch : int
        Prototypes a step, >= 1.
    margin : {"nearest", "max_pair"}
        The largest distance to a nearest class, as the official code has it (T2), or the largest
        distance of all, as the authors' slides do (T2b).
    """

    tau: float = 100.0
    server_epochs: int = 100
    server_lr: float = 0.01
    server_batch: int = 10
    margin: str = "nearest"

    counts: ClassVar[tuple[Only, ...]] = (only("server_lr", "server_batch", server_epochs=ABOVE_0),)

    def __post_init__(self) -> None:
        for name, low in (("tau", 0.0), ("server_lr", 0.0)):
            if not getattr(self, name) > low:
                raise ConfigError(f"{name} must be > {low:g}, got {getattr(self, name)}")
        for name, least in (("server_epochs", 0), ("server_batch", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be >= {least}, got {getattr(self, name)}")
        if self.margin not in get_args(TgpForm):
            raise ConfigError(
                f"margin must be one of {', '.join(get_args(TgpForm))}, got {self.margin!r}"
            )


class FedTGP(PrototypeStrategy):
    """Every uploaded prototype trains the generator; what it makes of all classes goes down.

    The global arrays are FedProto's. The generator lives on over the rounds, in float64; its
    optimizer does not. Uploads are taken by client_id, shuffles come from the run's seed and the
    round: the bits do not depend on who answered first.

    Parameters
    ----------
    settings : FedTGPSettings or None
        None takes the defaults.
    """

    Settings: ClassVar[type] = FedTGPSettings
    needs: Mapping[str, Need] = {PROTOTYPES: "each"}

    def __init__(self, settings: FedTGPSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or FedTGPSettings()
        self.generator: Tree = {}

    def initial(self, model: Arrays) -> Arrays:
        """Draw the generator, and return a table without any prototype."""
        classes, width = self.prepare(model)
        self.generator = draw_generator(classes, width, self.server.seed)
        return self.table(no_prototypes(classes, width))

    def merge(self, round_index: int, collected: Collected, server: Arrays) -> Merged:
        """Train the generator on what came; when nothing did, the old prototypes stay."""
        term = collected.each.get(PROTOTYPES)
        sent = np.zeros((0, 0)) if term is None else term.values[PRESENT]
        if term is None or not (sent > 0).any():
            old = Prototypes(server[VECTORS].astype(np.float64), server[PRESENT] > 0)
            return Merged(None, spread_figures(old))
        prototypes, figures = self.train(term.values[VECTORS], sent > 0, round_index)
        return Merged(self.table(prototypes), {**figures, **spread_figures(prototypes)})

    def train(
        self, values: NDArray[Any], sent: NDArray[np.bool_], round_index: int
    ) -> tuple[Prototypes, dict[str, float]]:
        """Train the generator on the uploads of a round (T1 to T3).

        Parameters
        ----------
        values : ndarray, shape (clients, classes, width)
            Uploaded prototypes, by client_id.
        sent : ndarray of bool, shape (clients, classes)
            Which of them count, at least one.
        round_index : int
            Part of the shuffles' seed.

        Returns
        -------
        Prototypes, dict of str to float
            The prototypes of all classes, and figures of the training.
        """
        means = prototype_mean(values, sent)
        margin = tgp_margin(
            *(torch.from_numpy(part) for part in means),
            tau=self.settings.tau,
            form=cast(TgpForm, self.settings.margin),
        )
        client, label = np.nonzero(sent)
        uploads = torch.from_numpy(values[client, label].astype(np.float64))
        loss = self._descend(uploads, torch.from_numpy(label), margin.value, round_index)
        vectors = generate(self.generator).numpy()
        return Prototypes(vectors, np.ones(len(vectors), dtype=bool)), {
            "server_loss": loss,
            "server_margin": float(margin.value),
            "gap_uploads": float(margin.smallest),
            "classes_sent_by_any": float(means.present.sum()),
        }

    def _descend(self, uploads: Tensor, labels: Tensor, margin: Tensor, round_index: int) -> float:
        """Run the epochs of SGD and return the mean loss of the last one."""
        random = generator(self.server.seed, "fedtgp", round_index)
        rate, size = self.settings.server_lr, self.settings.server_batch
        mean = float("nan")
        for _ in range(self.settings.server_epochs):
            order, total = random.permutation(len(labels)), 0.0
            for start in range(0, len(order), size):
                rows = torch.from_numpy(order[start : start + size])
                tree = {name: value.requires_grad_() for name, value in self.generator.items()}
                loss = generator_loss(tree, uploads[rows], labels[rows], margin)
                grads = torch.autograd.grad(loss, list(tree.values()))
                moves = zip(tree.items(), grads, strict=True)
                self.generator = {n: (v - rate * g).detach() for (n, v), g in moves}
                total += float(loss.detach()) * len(rows)
            mean = total / len(labels)
        return mean

    def state(self) -> State:
        """Return the generator."""
        return State({name: value.detach().numpy() for name, value in self.generator.items()})

    def load_state(self, state: State) -> None:
        """Go on with a stored generator."""
        if set(state.arrays) != set(self.generator):
            raise CheckpointError(
                f"the state holds {', '.join(sorted(state.arrays)) or 'nothing'}, not the generator"
                " of FedTGP: resume with the run's strategy"
            )
        self.generator = {n: torch.from_numpy(np.array(v)) for n, v in state.arrays.items()}


def draw_generator(classes: int, width: int, seed: int) -> Tree:
    """Draw a generator: a normal embedding, linear layers with the usual uniform weights.

    Parameters
    ----------
    classes, width : int
        Shape of the table that it makes.
    seed : int
        The run's.
    """
    random, bound = generator(seed, "fedtgp"), width**-0.5
    arrays = {"embedding": random.normal(size=(classes, width))}
    for layer in ("hidden", "output"):
        arrays[f"{layer}.weight"] = random.uniform(-bound, bound, size=(width, width))
        arrays[f"{layer}.bias"] = random.uniform(-bound, bound, size=width)
    return {name: torch.from_numpy(value) for name, value in arrays.items()}
