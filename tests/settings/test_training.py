"""One vocabulary for local training: a key means the same for every method, or is refused."""

from pathlib import Path

import pytest
import yaml

from fedlabels import clients
from fedlabels.cohort import SGD, Adam, Client, DataSpec, FitRequest, Layout
from fedlabels.cohort.training import own_names, training_names
from fedlabels.command.simulate import simulate
from fedlabels.errors import CheckpointError, ConfigError
from fedlabels.models import build as build_model
from fedlabels.renamed import RENAMED, renamed
from fedlabels.run.main import own_overrides
from fedlabels.settings.config import check
from fedlabels.settings.hashing import config_hash, flatten
from fedlabels.settings.mistakes import composing
from tests.end_to_end.harness import config_of

METHODS = ("fedavg", "fedlabel", "fixmatch", "fedld", "fedsa", "fedproto", "local_training")
BEFORE = {
    "client.name": "fedlabel", "client.tau": 30, "client.tau_prime": 10, "client.lr_labeled": 0.003,
    "client.lr_unlabeled": 0.003, "client.batch_labeled": 64, "client.batch_unlabeled": 32,
}  # fmt: skip


def client_of(given: list[str]) -> Client:
    with composing(given):
        config = config_of(*given)
    check(config)
    return clients.build(clients.settings_of(config))


@pytest.mark.parametrize("method", METHODS)
def test_a_key_means_the_same_for_every_method(method: str) -> None:
    config = config_of(
        f"method={method}", "training.lr=0.07", "training.steps=7", "training.batch_size=3",
        "training.clip=2", "training.schedule=cosine", "training.warmup_rounds=2", "rounds=10",
    )  # fmt: skip
    check(config)
    client = clients.build(clients.settings_of(config))
    assert (client.steps, client.epochs, client.batch_size, client.clip) == (7, None, 3, 2)
    request = FitRequest("train", 1, 10)
    assert client.learning_rate(request) == pytest.approx(0.035)
    assert client.learning_rate(FitRequest("train", 3, 10)) == pytest.approx(0.07)
    assert client.learning_rate(FitRequest("train", 7, 10)) == pytest.approx(0.035)


@pytest.mark.parametrize("method", METHODS)
def test_adam_is_there_for_every_method(method: str) -> None:
    config = config_of(
        f"method={method}", "training.optimizer=adam", "training.lr=0.01",
        "training.weight_decay=0.1", "training.decay_biases=false",
    )  # fmt: skip
    client = clients.build(clients.settings_of(config))
    net = build_model("lenet", DataSpec((1, 8, 8), 3))
    optimizer = client.make_optimizer(FitRequest("train", 1, 1), Layout(net))
    assert isinstance(optimizer, Adam)
    assert "head.bias" in optimizer.decay_skip
    assert "head.weight" not in optimizer.decay_skip
    assert isinstance(
        clients.find("fedavg")().make_optimizer(FitRequest("train", 1, 1), Layout(net)), SGD
    )


@pytest.mark.parametrize(
    ("method", "given", "steps", "epochs"),
    [
        ("fedproto", (), None, 1),
        ("fedproto", ("training.steps=10",), 10, None),
        ("fedavg", (), 10, None),
        ("fedavg", ("training.epochs=3",), None, 3),
    ],
)
def test_steps_and_epochs_take_each_others_place(
    method: str, given: tuple[str, ...], steps: int | None, epochs: int | None
) -> None:
    training = config_of(f"method={method}", *given)["training"]
    assert (training["steps"], training["epochs"]) == (steps, epochs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("method=fedlabel training.epochs=1", "training.epochs is no setting of client=fedlabel"),
        ("method=fedavg training.batch_unlabeled=3", "no setting of client=fedavg"),
        ("method=fixmatch training.lr_unlabeled=3", "no setting of client=fixmatch"),
        ("method=fedavg client.local_steps=3", "client.local_steps is training.steps now"),
        ("method=fedlabel client.tau=3", "client.tau is training.steps now"),
        ("method=fedlabel_joint training.steps_unlabeled=3", "has no effect without client.varia"),
        ("method=fedavg training.nesterov=true", "without training.momentum above 0"),
        ("method=fedavg training.optimizer=adam training.momentum=0.5", "training.optimizer=sgd"),
        ("method=fedsa training.lr=-1", "training.lr must be > 0, got -1"),
        ("method=fedld training.momentum=1", "training.momentum must be in"),
        ("method=fedavg training.steps=1 training.epochs=1", "exactly one of training.steps"),
        ("method=fedlabel training.steps=null", "which has no training.epochs, got None"),
        ("method=fedavg training=fedprox", "training is a group"),
        ("method=fedavg training=null", "training is a group"),
    ],
)
def test_what_is_of_no_use_is_refused_by_name(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        client_of(given.split())


@pytest.mark.parametrize("name", clients.names())
def test_every_setting_of_a_client_stands_in_one_group(name: str) -> None:
    kind = clients.find(name)
    assert not set(training_names(kind)) & set(own_names(kind))
    assert not {key.partition(".")[2] for key in RENAMED} & set(own_names(kind))


class TestRunsOfBefore:
    def test_are_read_under_the_names_of_now(self) -> None:
        settings = renamed(BEFORE)
        assert settings["training.steps"] == 30
        assert settings["training.steps_unlabeled"] == 10
        assert settings["training.lr"] == 0.003
        assert settings["training.lr_unlabeled"] is None  # as the labeled one
        assert settings["training.batch_unlabeled"] == 32
        assert settings["training.optimizer"] == "sgd"
        assert not [key for key in settings if key in RENAMED]

    def test_of_now_stay_as_they_are(self) -> None:
        now = {"client.name": "fedavg", "training.lr": 0.1}
        assert renamed(now) == now

    def test_of_now_may_have_settings_of_such_names(self, tmp_path: Path) -> None:
        config = {"client": {"name": "teacher", "lr": 0.1}, "training": {}, "seed": 0}
        flat = flatten(config)
        assert renamed(flat) == flat
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        assert own_overrides(str(tmp_path)) == []

    def test_of_fixmatch_have_no_epochs(self) -> None:
        before = {"client.name": "fixmatch", "client.local_steps": 10, "client.local_epochs": None}
        assert "training.epochs" not in renamed(before)
        assert "training.epochs" in renamed({**before, "client.name": "fedavg"})

    def test_of_one_live_model_have_one_rate(self) -> None:
        before = {"client.variant": "joint", "client.lr_labeled": 0.1, "client.lr_unlabeled": 0.003}
        settings = renamed(before)
        assert (settings["training.lr"], settings["training.lr_unlabeled"]) == (0.1, None)

    def test_are_refused_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = {"client": {"name": "fedavg", "lr": 0.1}, "seed": 0}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        assert simulate([f"resume={tmp_path}"]) == 1
        assert capsys.readouterr().err.startswith(f"error: resume={tmp_path} was made when")

    def test_are_not_resumed_but_told_who_can(self, tmp_path: Path) -> None:
        config = {"client": {"name": "fedavg", "lr": 0.1}, "seed": 0}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(CheckpointError, match=r"client\.lr is training\.lr now"):
            own_overrides(str(tmp_path))


def test_five_epochs_are_one_setting_however_written() -> None:
    hashes = {
        config_hash(config_of("method=fedavg", f"training.epochs={text}")) for text in ("5", "5.0")
    }
    assert len(hashes) == 1
    half = config_of("method=fedavg", "training.epochs=0.5")
    assert clients.build(clients.settings_of(half)).epochs == 0.5
    assert config_hash(half) not in hashes


@pytest.mark.parametrize("text", ["inf", "nan", "-0.5", "true", "many"])
def test_epochs_that_are_no_amount_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"training.epochs must be"):
        client_of(["method=fedavg", f"training.epochs={text}"])


def test_the_last_epoch_is_one_of_whole_ones() -> None:
    with pytest.raises(ConfigError, match="needs whole epochs"):
        client_of(["method=fedproto", "client.proto_from=last_epoch", "training.epochs=0.5"])
