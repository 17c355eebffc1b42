"""``predict``: a run's model is asked about arrays, pictures, and the run's own test split."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedlabels.data.digits import read_digits
from fedlabels.data.roots import Roots
from fedlabels.errors import DataError
from fedlabels.models.description import Samples
from fedlabels.use import load_model
from fedlabels.use.__main__ import main
from fedlabels.use.predict import logits_of, predict
from fedlabels.use.samples import fitted
from tests.end_to_end.harness import column

TEST = read_digits(Roots(None, ())).test


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """Run the command; return what it printed."""
    assert main(["predict", *map(str, arguments)]) == 0
    return capsys.readouterr()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that fails; return its only line."""
    assert main(["predict", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_the_test_split_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = asked(capsys, run, "test", "--out", tmp_path / "found.csv")
    accuracy = column(run, "test_accuracy")[-1]
    right = round(accuracy * len(TEST))
    assert out == (
        f"{len(TEST)} samples, the global model after round 2\n"
        f"accuracy: {100 * accuracy:.2f} % ({right} of {len(TEST)} samples of known class)\n"
    )
    rows = list(csv.DictReader((tmp_path / "found.csv").open(newline="")))
    assert list(rows[0])[:5] == ["sample", "class", "class_name", "label", "probability_0"]
    assert [row["label"] for row in rows] == [str(k) for k in TEST.y]
    assert sum(row["class"] == row["label"] for row in rows) == right
    assert sum(float(rows[3][f"probability_{k}"]) for k in range(10)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "labeled"),
    [({"x": 0}, False), ({"x_test": 0, "y_test": 1, "x_train": 2}, True), ({"x": 0, "y": 1}, True)],
)
def test_archives(
    keys: dict[str, int],
    labeled: bool,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = [TEST.x[:9, 0], np.where(np.arange(9) > 6, -1, TEST.y[:9])[:, None], TEST.x[9:12]]
    np.savez(tmp_path / "data.npz", **{key: values[k] for key, k in keys.items()})
    out, _ = asked(capsys, run, tmp_path / "data.npz", "--out", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    expected = predict(load_model(run), TEST.x[:9])
    assert [row["class"] for row in found["predictions"]] == expected.classes.tolist()
    assert found["model"] == "the global model after round 2"
    assert ("of 7 samples of known class" in out) is labeled
    assert ("label" in found["predictions"][0]) is labeled


def test_an_array_and_a_table_on_the_terminal(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", TEST.x[4])  # a single sample
    out, err = asked(capsys, run, tmp_path / "x.npy", "--labels")
    found = int(predict(load_model(run), TEST.x[4:5]).classes[0])
    assert out == f"sample,class,class_name\n0,{found},{found}\n"
    assert err == "1 samples, the global model after round 2\n"
    asked(capsys, run, tmp_path / "x.npy", "--out", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["class"].tolist() == [found]
        assert arrays["probabilities"].shape == (1, 10)


def test_pictures_in_folders_of_their_classes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in range(6):
        folder = tmp_path / "pictures" / str(TEST.y[row])
        folder.mkdir(parents=True, exist_ok=True)
        mode = "L" if row % 2 else "RGB"
        Image.fromarray(TEST.x[row, 0]).convert(mode).save(folder / f"{row}.png")
    out, err = asked(capsys, run, tmp_path / "pictures")
    rows = {Path(row["sample"]).stem: row for row in csv.DictReader(out.splitlines())}
    expected = predict(load_model(run), TEST.x[:6]).classes
    assert [int(rows[str(k)]["class"]) for k in range(6)] == expected.tolist()
    assert [int(rows[str(k)]["label"]) for k in range(6)] == TEST.y[:6].tolist()
    assert f"{(expected == TEST.y[:6]).sum()} of 6" in err
    one = tmp_path / "pictures" / str(TEST.y[0]) / "0.png"
    assert (
        asked(capsys, run, one, "--labels")[0].splitlines()[1]
        == f"0.png,{expected[0]},{expected[0]}"
    )


def test_a_clients_own_model_is_asked(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = min(int(path.name) for path in (own / "state").iterdir())
    assert "client=K" in refused(capsys, own, "test")
    np.save(tmp_path / "x.npy", TEST.x[:2])
    _, err = asked(capsys, own, tmp_path / "x.npy", "--client", client)
    assert f"client {client}'s own model" in err


def test_what_does_not_fit_is_refused_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(text: str, **arrays: Any) -> None:
        np.savez(tmp_path / "x.npz", **arrays)
        assert text in refused(capsys, run, tmp_path / "x.npz")

    refuses("takes samples of shape (1, 8, 8)", x=np.zeros((3, 1, 9, 9), "uint8"))
    refuses("(255 * x).round().astype('uint8')", x=np.zeros((3, 1, 8, 8)))
    refuses("holds no sample", x=np.zeros((0, 1, 8, 8), "uint8"))
    refuses("must hold x, or x_test, with the samples; it holds z", z=np.zeros(3))
    refuses("2 labels for 3 samples", x=TEST.x[:3], y=TEST.y[:2])
    refuses("classes 0 to 9 (-1: not known), got 4 to 12", x=TEST.x[:2], y=np.array([12, 4]))
    assert "there is no nowhere" in refused(capsys, run, "nowhere")
    (tmp_path / "x.txt").write_text("x")
    assert "of no known kind" in refused(capsys, run, tmp_path / "x.txt")
    (tmp_path / "bad.npz").write_text("x")
    assert "cannot be read" in refused(capsys, run, tmp_path / "bad.npz")
    series = np.empty(2, dtype=object)
    series[0], series[1] = np.zeros((1, 4)), np.zeros((1, 5))
    np.savez(tmp_path / "series.npz", x=series)
    assert "holds objects" in refused(capsys, run, tmp_path / "series.npz")
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in refused(capsys, run, tmp_path / "empty")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    assert "is in colour" in refused(capsys, run, tmp_path / "red.png")
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    assert "has 9 x 8 pixels, and the model takes 8 x 8" in refused(
        capsys, run, tmp_path / "wide.png"
    )
    assert "must end in .csv, .json, .npz" in refused(capsys, run, "test", "--out", "x.txt")
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert "no config.yaml there" in refused(capsys, tmp_path, "test")
    assert main([]) == main(["predct"]) == 2
    assert main(["--help"]) == 0


def test_the_file_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "data.npy", TEST.x[:5])
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes((run / "model.safetensors").read_bytes())
    found = [asked(capsys, source, tmp_path / "data.npy") for source in (run, alone)]
    assert found[0] == found[1]


def test_an_order_of_axes_that_fits_one_way_is_taken() -> None:
    image = Samples((3, 8, 6), True, (0.5,) * 3, (0.5,) * 3)
    x = np.arange(2 * 3 * 8 * 6).reshape(2, 3, 8, 6).astype("uint8")
    for given in (x, x.transpose(0, 2, 3, 1)):
        assert (fitted("x", given, image) == x).all()
    assert (fitted("x", x[1].transpose(1, 2, 0), image) == x[1:]).all()
    series = Samples((2, 16), False, (0.0,) * 2, (1.0,) * 2, layout="time_channels")
    steps = np.linspace(0, 1, 3 * 16 * 2).reshape(3, 16, 2)
    assert (fitted("x", steps, series) == steps.transpose(0, 2, 1).astype("float32")).all()
    square = Samples((4, 4), False, (0.0,) * 4, (1.0,) * 4, layout="time_channels")
    both = np.arange(16.0).reshape(1, 4, 4)
    assert (fitted("x", both, square) == both.transpose(0, 2, 1)).all()
    with pytest.raises(DataError, match=r"is int64, and the model takes numbers as float32"):
        fitted("x", np.zeros((2, 4, 4), "int64"), square)
    with pytest.raises(DataError, match="holds nan or inf"):
        fitted("x", np.full((2, 4, 4), np.nan), square)


def test_batches_do_not_matter_to_the_classes(run: Path) -> None:
    model = load_model(run)
    many = np.concatenate([TEST.x, TEST.x])
    assert len(many) > 500
    logits = logits_of(model, many)
    assert (logits.argmax(1) == np.tile(logits_of(model, TEST.x).argmax(1), 2)).all()
