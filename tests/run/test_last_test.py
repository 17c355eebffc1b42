"""What the last evaluation leaves: its files, their bytes, and what a resume makes of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedlabels.run import RunFolder
from fedlabels.worker.classification import confusion_matrix
from fedlabels.worker.evaluation import Evaluation, Predictions
from tests.end_to_end.harness import TINY, config_of, simulate, table

FILES = {"confusion.csv", "calibration.csv", "predictions.npz"}


def evaluation(probabilities: NDArray[np.float32] | None) -> Evaluation:
    label, predicted = np.array([0, 1, 1]), np.array([0, 1, 0])
    found = Predictions(np.array([0, 2, 3]), label, predicted, probabilities)
    return Evaluation(1.0, 2 / 3, confusion_matrix(label, predicted, 2), found)


SURE = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)


def files(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.name in FILES}


def test_files_of_an_evaluation(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.last_test.write(4, evaluation(SURE), predictions=True)
    assert table(tmp_path, "confusion") == [
        {"round": "4", "class": "0", "predicted_0": "1", "predicted_1": "0"},
        {"round": "4", "class": "1", "predicted_0": "1", "predicted_1": "1"},
    ]
    binned = table(tmp_path, "calibration")
    assert [float(row["up_to"]) for row in binned] == pytest.approx(np.arange(1, 16) / 15)
    assert sum(int(row["samples"]) for row in binned) == 3
    assert sum(int(row["right"]) for row in binned) == 2
    with np.load(folder.last_test.predictions, allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype.name for name in arrays} == {
            "round": "int64",
            "index": "int64",
            "label": "int64",
            "predicted": "int64",
            "probabilities": "float32",
        }
        assert arrays["round"] == 4
        assert arrays["index"].tolist() == [0, 2, 3]
        np.testing.assert_array_equal(arrays["probabilities"], SURE)
    before = files(folder)
    folder.last_test.write(4, evaluation(SURE), predictions=True)
    assert files(folder) == before


def test_what_is_not_wanted_or_not_known_is_not_left_from_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.last_test.write(1, evaluation(SURE), predictions=True)
    folder.last_test.write(2, evaluation(SURE), predictions=False)
    assert files(folder).keys() == {"confusion.csv", "calibration.csv"}
    folder.last_test.write(3, evaluation(None), predictions=True)
    assert files(folder).keys() == {"confusion.csv", "predictions.npz"}
    with np.load(folder.last_test.predictions) as arrays:
        assert "probabilities" not in arrays


def test_a_resume_removes_what_is_newer_or_damaged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.cut_back(0)
    folder.last_test.write(3, evaluation(SURE), predictions=True)
    folder.cut_back(3)
    assert files(folder).keys() == FILES
    folder.cut_back(2)
    assert files(folder) == {}
    folder.last_test.write(3, evaluation(SURE), predictions=True)
    folder.last_test.confusion.write_text("round,class\n")
    folder.cut_back(3)
    assert files(folder) == {}


def test_a_run_says_of_its_last_evaluation_what_its_predictions_say(tmp_path: Path) -> None:
    simulate(tmp_path, config_of(*TINY, "evaluate_every=2", "rounds=3"))
    last = table(tmp_path)[-1]
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        label, predicted = arrays["label"], arrays["predicted"]
        assert arrays["round"] == 3
        assert float(last["test_accuracy"]) == np.mean(label == predicted)
        each = arrays["probabilities"]
    np.testing.assert_array_equal(each.argmax(1), predicted)
    counts = [
        [int(row[f"predicted_{c}"]) for c in range(10)] for row in table(tmp_path, "confusion")
    ]
    np.testing.assert_array_equal(counts, confusion_matrix(label, predicted, 10))
    classes = table(tmp_path, "test_class")[-1]
    f1 = [float(classes[f"f1_{c}"]) for c in range(10)]
    assert float(last["test_f1_macro"]) == pytest.approx(np.mean(f1))
    assert not (tmp_path / "test_domain.csv").exists()


def test_predictions_may_be_switched_off_and_on(tmp_path: Path) -> None:
    config = config_of(*TINY, "rounds=1", "predictions=false")
    simulate(tmp_path, config)
    assert files(RunFolder(tmp_path, resume=True)).keys() == {"confusion.csv", "calibration.csv"}
    simulate(tmp_path, {**config, "rounds": 2, "predictions": True}, resume=True)
    assert (tmp_path / "predictions.npz").exists()
