"""The look before a run: what it says, what it draws, what it calls suspicious."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, POLICIES, Federation, Ragged, Samples, suspicions
from fedlabels.federation.suspicion import late_class_trend
from fedlabels.preview import main, preview
from fedlabels.run.data import build_data
from tests.end_to_end.harness import config_of

# What has no usual value and must be given.
NEEDED = {
    "classes_per_client": ["partition.number=2"],
    "extended_dirichlet": ["partition.number=2"],
    "flower": ["partition.target=IidPartitioner"],
    "zero_label_clients": ["labels.share=0.3"],
    "fully_labeled_clients": ["labels.share=0.3"],
    "per_class_count": ["labels.count=2"],
    "server": ["labels.per_class=2"],
}


def test_says_what_a_run_would_hold(tmp_path: Path) -> None:
    given = ["partition=client_dirichlet", "partition.alpha=0.3", "clients=20", "seed=4"]
    text = preview([*given, "labels.fraction=0.2"], tmp_path / "look.html")
    _, federation = build_data(config_of("method=fedlabel", *given, "labels.fraction=0.2"))
    assert f"{federation.hash[:16]}" in text
    assert "1,442 of 1,442" in text
    assert f"{len(federation.labeled.index):,} (" in text
    page = (tmp_path / "look.html").read_text()
    assert "digits, 20 clients" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_domains_are_dealt_but_not_rendered(tmp_path: Path) -> None:
    text = preview(["shift.preset=sfs4", "clients=8", "per_round=10"], tmp_path / "look.html")
    assert re.search(r"domain clean: 3[56]\d samples, 8 clients", text)
    assert re.search(r"domain edge: 3[56]\d samples, 8 clients", text)


def test_a_bad_setting_is_one_line_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "look.html"
    assert main(["partition.alpha=0", f"picture={picture}"]) == 2
    assert capsys.readouterr().err.startswith("error: partition.alpha must be > 0")
    assert not picture.exists()
    assert main(["no_such=1", f"picture={picture}"]) == 2
    assert capsys.readouterr().err.startswith("error: no_such is no setting")
    assert main(["partition.alpa=1", f"picture={picture}"]) == 2
    assert "did you mean partition.alpha?" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: fedlabels preview")


def federation(labeled: list[list[int]], unlabeled: list[list[int]], y: list[int]) -> Federation:
    lists = Ragged.from_lists(labeled), Ragged.from_lists(unlabeled)
    return Federation.plain(*lists, np.array(y), 3, {})


class TestSuspicions:
    def test_names_what_is_odd(self) -> None:
        odd = federation([[0], [], []], [[1, 2], [3, 4], []], [0, 0, 1, 1, 1])
        said = " ".join(suspicions(odd))
        assert "Clients without any sample, which never contribute: 1." in said
        assert "Clients with fewer than 10 samples: 2" in said
        assert "No client has a label of class 1, 2" in said
        assert "Clients without a label: 2 of 3." in said
        assert "Classes that only one client holds: 1" in said
        assert "Classes that no client holds: 1." in said

    def test_a_sample_of_both_lists_counts_once(self) -> None:
        y = [0, 1, 2] * 4
        both = federation([list(range(6))], [list(range(12))], y)
        assert both.held.sizes.tolist() == [12]
        assert "fewer than 10 samples: 1" in " ".join(
            suspicions(federation([list(range(6))], [list(range(8))], y))
        )
        apart = federation([[0, 0, 1]], [[2, 2]], y)  # samples that repeat are not lost
        assert apart.held.index.tolist() == [0, 0, 1, 2, 2]

    def test_labels_that_the_method_sees_anyway(self) -> None:
        hidden = federation([[], []], [[0], [1]], [0, 1])
        assert "No client has a label" not in " ".join(suspicions(hidden, sees_all_labels=True))

    def test_test_samples_without_a_label(self) -> None:
        fine = federation([[0]], [[1]], [0, 1])
        tests = Samples(np.array([0, -1]), 3, np.array([0, 1]), ("here", "there"))
        said = " ".join(suspicions(fine, tests))
        assert "1 of 2 test samples have no label" in said
        assert "Domains without a label in the test set: there." in said
        said = " ".join(suspicions(fine, Samples(np.array([-1, -1]), 3)))
        assert "No test sample has a label" in said

    def test_people_who_take_no_part(self, tmp_path: Path) -> None:
        who = np.repeat(["a", "b", "c", "d"], [40, 30, 20, 10])
        x, y = np.arange(200, dtype=np.float32).reshape(100, 2), np.arange(100) % 2
        file = tmp_path / "own.npz"
        np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y, client_train=who)
        look = ["dataset=npz", f"dataset.root={file}", "model=mlp", "partition=natural"]

        def said(*more: str) -> str:
            return preview([*look, *more], tmp_path / "look.html")

        out = "2 of 4 people take no part, with 30 of 100 training samples"
        assert f"{out}." in said("clients=2", "per_round=2", "partition.min_size=25")
        few = said("clients=2", "per_round=2", "partition.min_size=20")
        assert "clients=3 takes all with at least partition.min_size=20 samples." in few
        assert re.search(
            r"1 of 4 people .*; clients=4 takes all\.", said("clients=3", "per_round=2")
        )
        assert "take no part" not in said("clients=4", "per_round=2")

    def test_clients_with_hardly_a_test_sample(self, tmp_path: Path) -> None:
        asked = [
            "dataset=digits",
            "method=fedbn",
            "clients=500",
            "partition=iid",
            "labels.total=99",
        ]
        _, dealt = build_data(config_of(*asked))
        said = " ".join(suspicions(dealt))
        assert "Clients without a test sample of their own: 145 of 500" in said
        assert "Clients with fewer than 10 test samples of their own: 355 of 500" in said
        text = preview(asked, tmp_path / "look.html")
        assert re.search(r"clients without own test samples +145", text)

    def test_no_label_anywhere(self) -> None:
        said = " ".join(suspicions(federation([[], []], [[0], [1]], [0, 1])))
        assert "methods that need labels at the clients cannot run" in said

    def test_a_share_that_leaves_no_label_is_refused(self) -> None:
        asked = ["dataset=digits", "partition=iid", "labels.fraction=0.02774", "clients=100"]
        with pytest.raises(ConfigError, match=r"labels\.total=40"):
            build_data(config_of(*asked))
        assert len(build_data(config_of(*asked[:2], "labels.total=40"))[1].labeled.index) == 40

    def test_nothing_odd(self) -> None:
        y = [0, 1, 2] * 30
        fine = federation(
            [list(range(9)), list(range(45, 54))], [list(range(9, 45)), list(range(54, 90))], y
        )
        assert suspicions(fine) == []

    def test_late_classes_of_balanced_dirichlet(self) -> None:
        balanced = [
            "partition.balance=true", "partition.alpha=0.5", "clients=100", "labels.fraction=1",
            "dataset=digits",
        ]  # fmt: skip
        natural = [*balanced, "partition.class_order=natural"]
        _, biased = build_data(config_of("method=fedlabel", *natural))
        _, fair = build_data(config_of("method=fedlabel", *balanced))
        assert any("late classes" in said for said in suspicions(biased))
        assert not any("late classes" in said for said in suspicions(fair))

    def test_trend(self) -> None:
        assert late_class_trend(np.array([[1, 1], [1, 0]])) == pytest.approx(-1.0)
        assert late_class_trend(np.ones((2, 3), dtype=np.int64)) == 0.0


def needed(group: str, name: str) -> list[str]:
    """Return the settings that an option has no default for."""
    return [f"{group}.file=there"] if name == "from_file" else NEEDED.get(name, [])


@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_every_partition_composes_alone(name: str) -> None:
    config = config_of("method=fedlabel", f"partition={name}", *needed("partition", name))
    assert config["partition"]["name"] == name
    assert config["partition"].get("alpha", 0.5) in (0.5, None)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_label_policy_composes_alone(name: str) -> None:
    config = config_of("method=fedlabel", f"labels={name}", *needed("labels", name))
    assert config["labels"].get("fraction", 0.1) in (0.1, 0.0)
