"""Take part as a device does, with what only the server needs made absent; prints what it used.

Run by test_device_only.py, and with the oldest supported libraries by "make test-lower".
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ABSENT = ("hydra", "omegaconf", "ray", "sklearn", "yaml", "PIL", "scipy")


class Without:
    """A finder that finds everything but some libraries, as if they were not installed."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        absent = name.split(".")[0] in ABSENT
        return None if absent else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def main() -> None:
    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import numpy as np
    from flwr.app import Context, Message, RecordDict

    from fedlabels.cohort import DataSpec
    from fedlabels.deploy.client_app import app
    from fedlabels.deploy.spec import DeviceSpec
    from fedlabels.models import build
    from fedlabels.rounds import wire
    from fedlabels.rounds.flower_compat import identify, set_message_id

    identify()
    for absent in ABSENT:
        try:
            __import__(absent)
        except ImportError:
            continue
        raise AssertionError(f"{absent} can be imported")
    root = Path(tempfile.mkdtemp())
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (60, 1, 12, 12)).astype(np.uint8)
    y = generator.integers(0, 3, 60)
    y[20:] = -1
    np.savez(root / "train.npz", x=x, y=y)
    np.savez(root / "test.npz", x=x[:10], y=y[:10])
    node = {"client-id": 5, "data-dir": str(root), "state-dir": str(root / "state"), "threads": 1}

    def ask(kind: str, spec: DeviceSpec, round_index: int, model: Any) -> Any:
        shared = {"model": model} if model else {}
        content = wire.encode_down(wire.Downlink(round_index, 3, shared))
        task = wire.Task(spec.dumps(), round_index - 1, 0, round_index > 1)
        content[wire.DEVICE] = wire.encode_task(task)
        message = Message(content, 9, kind)
        set_message_id(message, f"message-{round_index}")
        reply = app(message, Context(1, 9, dict(node), RecordDict(), {}))
        said = wire.decode_remark(reply.content)
        assert not said.error, said.error
        assert said.client_id == 5
        return said if kind == "query" else wire.decode_up(reply.content)

    for client in (
        {"name": "fedlabel", "steps": 2, "steps_unlabeled": 2, "threshold": 0.3},
        {"name": "fixmatch", "steps": 2},
        {"name": "fedbn", "steps": 2},
    ):
        spec = DeviceSpec(
            run="abc", seed=0, client=client, model={"name": "lenet", "norm": "batch"},
            shape=(1, 12, 12), class_names=("a", "b", "c"), mean=(0.5,), std=(0.25,), pixels=True,
            views="digits",
        )  # fmt: skip
        net = build("lenet", DataSpec((1, 12, 12), 3), norm="batch")
        model = {name: value.numpy() for name, value in net.state_dict().items()}
        said = ask("query", spec, 1, None)
        assert said.counts == {"labeled": 20, "unlabeled": 40, "test": 10}, said
        for round_index in (1, 2):
            up = ask("train", spec, round_index, model)
            sent = up.terms["model"].value
            assert up.weight > 0
            assert all(np.isfinite(value).all() for value in sent.values())
            assert any((value != model[name]).any() for name, value in sent.items())
            model = {**model, **sent}
        assert "device_accuracy" in up.metrics
    from tests.federation.hashes import DEALT, digest, hashes

    assert digest(hashes()) == DEALT, "this numpy deals other federations"
    kept = sorted((root / "state" / "5").glob("*.safetensors"))
    assert [path.stem for path in kept][-1] == "00000002", kept
    used = ("flwr", "numpy", "safetensors", "torch")
    print("ok:", f"python {sys.version.split()[0]},", ", ".join(f"{n} {version(n)}" for n in used))


if __name__ == "__main__":
    main()
