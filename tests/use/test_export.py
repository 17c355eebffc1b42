"""``export``: a model in another form says the same, or no file is written."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedlabels.cohort.net import build_seeded
from fedlabels.models import MODELS, build
from fedlabels.models.description import HEADER, Architecture, Description, Samples, loads
from fedlabels.models.wsconv import ScaledReLU
from fedlabels.use import RunModel, export, load_model
from fedlabels.use.__main__ import main
from fedlabels.use.export import Exported, checked, plain, to_onnx, to_torch
from tests.end_to_end.harness import REPO, column, config_of, simulate

PAGE = REPO / "docs" / "use-a-model.md"
NORMS: dict[str, tuple[dict[str, Any], ...]] = {
    "alexnet": ({"width": 8, "hidden": 16},),
    "cnn1d": ({"width": 8}, {"width": 8, "norm": "ws_group"}),
    "digits_cnn": ({"width": 8, "hidden": [16, 16]},),
    "lenet": tuple({"norm": norm} for norm in ("none", "layer", "ws_group")),
    "mlp": ({"hidden": [16], "feature_dim": 4},),
    "mobilenet": ({"width": 0.25},),
    "resnet8": tuple({"norm": norm} for norm in ("batch", "group", "ws", "none")),
}
CASES = [(name, s) for name in sorted(MODELS) for s in NORMS.get(name, ({},)) if name != "resnet18"]


def fresh(name: str, settings: dict[str, Any]) -> tuple[RunModel, Any]:
    """Return a model with new weights, and raw samples for it."""
    shape = (3, 32) if name == "cnn1d" else (3, 16, 16)
    pixels = len(shape) == 3
    samples = Samples(shape, pixels, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    description = Description(
        (Architecture(name, settings),), samples, tuple("abcd"), "fedavg", "fedavg", 1, "", True,
        (), "float32", "0",
    )  # fmt: skip
    net: Any = build_seeded(lambda: {"net": build(name, description.spec, **settings)}, 3)["net"]
    rng = np.random.default_rng(0)
    x = (
        rng.integers(0, 256, (7, *shape)).astype("uint8")
        if pixels
        else rng.normal(size=(7, *shape))
    )
    return RunModel(net, description), x if pixels else x.astype("float32")


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_torch_exports_every_model(name: str, settings: dict[str, Any]) -> None:
    model, x = fresh(name, settings)
    found = checked(model, to_torch(model), x)
    assert (found.samples, found.classes) == (7, 0)
    assert 0 < found.scale < 1e3


def test_onnx_exports_a_model_of_series() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model, x = fresh("cnn1d", {"width": 8})
    assert checked(model, to_onnx(model), x).classes == 0


def test_onnx_exports_a_relu_that_is_cut_off() -> None:
    pytest.importorskip("onnxscript")
    relu = ScaledReLU(1.0, 6.0)
    assert torch.onnx.export(relu, (torch.ones(2, 3),), dynamo=True, verbose=False) is not None


def test_an_exported_file_is_loaded_by_torch_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.pt2"
    assert main(["export", str(run), "--format", "torch-export", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"checked on 355 samples: largest difference .*, 0 other classes\n", said)
    about = {HEADER: ""}
    program = torch.export.load(out, extra_files=about).module()
    model = load_model(run)
    assert loads(about[HEADER], "it") == model.description
    x = torch.arange(3 * 64, dtype=torch.uint8).reshape(3, 1, 8, 8)
    torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_it_computes_in_float32(run: Path) -> None:
    model = load_model(run).double()
    assert model(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).dtype is torch.float64
    assert plain(model)(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).dtype is torch.float32
    assert model(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).dtype is torch.float64


@pytest.mark.parametrize(
    "wrong", [lambda y: y + 0.1, lambda y: y * np.nan, lambda y: -y], ids=["off", "nan", "turned"]
)
def test_what_differs_from_torch_is_not_written(
    wrong: Callable[[Any], Any],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(model: RunModel) -> Exported:
        return Exported(b"", lambda x: wrong(export.logits_of(model, x)))

    monkeypatch.setitem(export.FORMATS, "torch-export", (".pt2", broken))
    out = tmp_path / "x.pt2"
    assert main(["export", str(run), "--format", "torch-export", "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert re.match(
        r"error: the exported model differs from torch by .* no file was written\n", err
    )
    assert not out.exists()


def test_what_is_asked_for_wrongly(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> str:
        assert main(["export", *map(str, arguments)]) == 1
        return capsys.readouterr().err

    wrong = refused(run, "--format", "torch-export", "--out", "x.onnx")
    assert "must end in .pt2 with --format=torch-export" in wrong
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "pip install 'fedlabels[export]'" in refused(run, "--format", "onnx")
    # another data set than the run's would check nothing
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 9, 9), "uint8"))
    data = refused(run, "--format", "torch-export", "--data", tmp_path / "x.npy")
    assert "takes samples of shape (1, 8, 8)" in data


def test_the_script_of_the_page_says_the_accuracy_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    page = PAGE.read_text(encoding="utf-8")
    script = page.split("## Export it")[1].split("```python\n")[1].split("```")[0]
    assert len(script.splitlines()) <= 10
    assert "fedlabels export runs/quickstart --format onnx\n" in page
    monkeypatch.chdir(tmp_path)
    simulate(Path("runs/quickstart"), config_of("preset=quickstart", "rounds=2", "backend=serial"))
    assert main(["export", "runs/quickstart", "--format", "onnx"]) == 0
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(script, str(PAGE), "exec"), {})
    accuracy = column(Path("runs/quickstart"), "test_accuracy")[-1]
    assert out.getvalue() == f"{100 * accuracy:.2f} %\n"
