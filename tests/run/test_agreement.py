"""What a strategy sends is read, or the run is refused before anything of it is written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from fedlabels import clients
from fedlabels.clients.fedavg import FedAvg
from fedlabels.clients.fedprox import FedProx
from fedlabels.cohort import Client, Cohort, FitRequest, FitResult, Reads
from fedlabels.errors import ConfigError, RunError
from fedlabels.rounds.job import Arrays
from fedlabels.run.agreement import makes_of, reads_of
from fedlabels.run.setup import build_world
from fedlabels.run.world import World
from fedlabels.strategies.fedavg import FedAvg as FedAvgServer
from fedlabels.worker.trainer import Trainer
from tests.end_to_end.harness import TINY, config_of, simulate, with_client

CLIP = "strategy.options={noise_multiplier: 0.0, clipping_norm: 0.01, num_sampled_clients: 5,"
CLIENT_SIDE = (
    "method=stock", "strategy.rule=DifferentialPrivacyClientSideFixedClipping",
    f"{CLIP} strategy: {{name: FedAvg}}}}",
)  # fmt: skip
SERVER_SIDE = (
    "method=stock", "strategy.rule=DifferentialPrivacyServerSideFixedClipping",
    f"{CLIP} strategy: {{name: FedAvg}}}}",
)  # fmt: skip
PROX = ("method=stock", "strategy.rule=FedProx", "strategy.options={proximal_mu: 2.0}")
ADAPTIVE = "strategy.options={noise_multiplier: 0.0, num_sampled_clients: 5,"


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (PROX, "the setting proximal-mu, which the client does not read.*client=fedprox"),
            (CLIENT_SIDE, r"the setting clipping_norm.*deploy\.mods=\[fixed_clipping\]"),
            (("method=fixmatch", "strategy=fedprox"), r"proximal-mu.*client=fedprox"),
            (("method=fixmatch", "strategy=fedlabel_anchors"), "anchor-lambda-reg.*client=fedavg"),
            (("method=fedld", "strategy=fedlabel_anchors"), "anchor-lambda-reg"),
            (
                ("method=fedlabel_joint", "strategy=fedlabel_anchors", "strategy.variant=paper"),
                "anchor-lambda-reg",
            ),
            (("method=fedavg", "strategy=fedproto"), r"sends present, vectors.*client=fedproto"),
            (("method=fedproto", "strategy=fedavg"), r"reads present, vectors.*strategy=fedproto"),
            (
                ("method=fedsa", "strategy=fedtgp"),
                r"reads anchors.*client=fedproto.*strategy=fedsa",
            ),
            (("method=fedavg", "strategy=local_training"), "sends nothing.*client=local_training"),
            (("method=local_training", "strategy=fedavg"), "needs the term model.*sends none"),
            (("method=fedavg", "deploy.mods=[fixed_clipping]"), "needs the setting clipping_norm"),
            (("method=fedavg", "deploy.mods=[nothing]"), "deploy.mods may hold fixed_clipping"),
            (
                ("method=fedavg", "deploy.mods=[adaptive_clipping]"),
                r"Flower \(1\.41, 1\.42\).*1905\.03871",
            ),
            ((*SERVER_SIDE, "model=resnet8", "model.norm=batch"), r"statistics.*model\.norm=group"),
            (
                (*CLIENT_SIDE, "deploy.mods=[fixed_clipping]", "model=resnet8", "model.norm=batch"),
                r"statistics.*model\.norm=group",
            ),
        ],
    )
    def test_is_refused_before_anything_is_written(
        self, tmp_path: Path, overrides: tuple[str, ...], words: str
    ) -> None:
        plain = [one for one in TINY if not one.startswith("model")]
        model = () if any(one.startswith("model=") for one in overrides) else ("model=mlp",)
        with pytest.raises(ConfigError, match=words):
            simulate(tmp_path / "run", config_of(*plain, *overrides, *model))
        assert list((tmp_path / "run").glob("*")) == []

    @pytest.mark.parametrize("side", ["ServerSide", "ClientSide"])
    def test_adaptive_clipping_is_refused_with_the_reason(self, side: str) -> None:
        rule = f"strategy.rule=DifferentialPrivacy{side}AdaptiveClipping"
        options = f"{ADAPTIVE} strategy: {{name: FedAvg}}}}"
        with pytest.raises(ConfigError, match=r"dp_adaptive_clipping\.py.*1905\.03871"):
            build_world(config_of(*TINY, "method=stock", rule, options))


@pytest.mark.parametrize(
    "overrides",
    [
        "client=fedprox method=fedadam", "client=fedlabel strategy=fedld method=fedld",
        "method=fedbn strategy=fedlabel_anchors", "client=fixmatch method=stock",
        "method=fedlabel_flute strategy=fedlabel_anchors strategy.variant=flute",
    ],
)  # fmt: skip
def test_what_fits_is_built(overrides: str) -> None:
    build_world(config_of(*TINY, *overrides.split()))


def test_statistics_that_stay_with_the_client_may_be_private() -> None:
    model = ("clients=4", "per_round=4", "dataset=digits", "model=resnet8", "model.norm=batch")
    build_world(config_of(*model, *SERVER_SIDE, "client=fedbn", "client.bn_policy=silo"))


class Noted(Mapping[str, Any]):
    """A mapping that remembers which keys were read."""

    def __init__(self, values: Mapping[str, Any], read: set[str]) -> None:
        self._values, self._read = values, read

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        self._read.add(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Damped(FedAvg):
    """Reads a setting, or a payload, that may not come; ``of`` says where it looks."""

    of: str = "settings"

    @property
    def reads(self) -> Reads:
        """Name all."""
        return Reads(settings=("damping",), payloads=("table",))

    def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
        """Read one of them."""
        assert request.settings.get("damping", 1.0) == 1.0
        assert "table" not in request.shared
        assert "table" not in request.own
        _ = getattr(request, self.of)["damping" if self.of == "settings" else "table"]
        return super().fit(cohort, request)


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ("settings", "the strategy does not send the setting 'damping'; it sends: none"),
        ("shared", "the strategy does not send the payload 'table'; it sends: 'model'"),
        ("own", "the strategy does not send the own payload 'table'; it sends: none"),
    ],
)
@pytest.mark.parametrize("execution", ["looped", "stacked"])
def test_who_reads_what_does_not_come_is_told_what_does(
    tmp_path: Path, of: str, told: str, execution: str
) -> None:
    client = Damped(lr=0.1, steps=2, of=of)
    more = "method=fedavg", "rounds=1", f"backend.execution={execution}"
    with pytest.raises(RunError, match=rf"{told}\. .*\.get\(\)"):
        simulate(tmp_path / "run", config_of(*TINY, *more), with_client(client))


class TestDeclarations:
    @pytest.mark.parametrize(
        "overrides",
        [
            "method=fedavg", "method=fedprox", "method=fixmatch", "method=fedld", "method=fedbn",
            "method=fedlabel", "method=fedlabel_flute", "method=fedlabel_joint", "method=fedsa",
            "method=fedproto", "method=fedtgp", "method=local_training",
            "method=fedavg strategy=fedlabel_anchors", "method=fedprox strategy=fedlabel_anchors",
            "method=fedbn strategy=fedlabel_anchors model.hidden=[32]",
            "method=fedlabel strategy=fedlabel_anchors",
            "method=fedlabel_flute strategy=fedlabel_anchors",
        ],
    )  # fmt: skip
    def test_are_what_the_clients_do(self, tmp_path: Path, overrides: str) -> None:
        read, sent, made = (set[str](), set[str](), set[str]())
        whole, outcomes = Trainer._request, Trainer._read

        def noted(self: Trainer, order: Any, trees: Any) -> FitRequest:
            request = whole(self, order, trees)
            sent.update(request.settings, request.shared)
            return replace(
                request, settings=Noted(request.settings, read), shared=Noted(request.shared, read)
            )

        def seen(self: Trainer, order: Any, items: Any, found: Any) -> Any:
            made.update(name for one in found for name in one.result.terms)
            return outcomes(self, order, items, found)

        few = ("clients=4", "per_round=4", "rounds=1")
        config = config_of(*TINY, *few, *overrides.split())
        with (
            mock.patch.object(Trainer, "_request", noted),
            mock.patch.object(Trainer, "_read", seen),
        ):
            simulate(tmp_path / "run", config)
        client = clients.build(clients.settings_of(config))
        said = reads_of(client)
        assert read - {"model"} == {*said.settings, *said.payloads} & sent
        assert sent - {"model"} <= {*said.settings, *said.payloads}
        assert made == set(makes_of(client) or ())

    def test_every_client_says_what_it_makes_beside_its_fit(self) -> None:
        assert all(makes_of(clients.build({"name": name})) is not None for name in clients.names())

    def test_hold_for_the_fit_of_their_class(self) -> None:
        @dataclass(frozen=True)
        class Deaf(FedProx):
            def fit(self, cohort: Cohort, request: FitRequest) -> FitResult:
                raise NotImplementedError

        @dataclass(frozen=True)
        class Renamed(FedProx):
            """The same training."""

        assert "proximal-mu" in reads_of(Renamed()).settings
        assert reads_of(Deaf()) == Reads()
        assert makes_of(Deaf()) is None
        assert reads_of(Client()) == Reads()


class Late(FedAvgServer):
    """Sends a table from the second round on, which nothing could tell before the run."""

    def shared(self, exchange: str, round_index: int) -> Mapping[str, Arrays]:
        """Return the table."""
        return {"table": {"w": np.zeros(1)}} if round_index > 1 else {}


class Asking(FedAvgServer):
    """Asks for an exchange that clients do not have."""

    def exchanges(self, round_index: int) -> tuple[str, ...]:
        """Name both."""
        return ("train", "weigh")


def test_what_a_later_round_sends_is_refused_before_anybody_trains(tmp_path: Path) -> None:
    trained: list[int] = []
    fit = FedAvg.fit

    def counted(self: FedAvg, cohort: Cohort, request: FitRequest) -> FitResult:
        trained.append(request.round)
        return fit(self, cohort, request)

    def late(world: World) -> World:
        return replace(world, strategy=Late())

    config = config_of(*TINY, "method=fedavg", "rounds=3")
    with mock.patch.object(FedAvg, "fit", counted), pytest.raises(RunError, match="sends table"):
        simulate(tmp_path / "run", config, late)
    assert set(trained) == {1}


def test_an_exchange_that_the_client_lacks_is_refused(tmp_path: Path) -> None:
    with (
        mock.patch("fedlabels.strategies.build", return_value=Asking()),
        pytest.raises(ConfigError, match="the exchange weigh"),
    ):
        build_world(config_of(*TINY, "method=fedavg"))
