"""Train as a device does, with the libraries of the simulator made absent: run by test_layers."""

import importlib
import pkgutil
import sys
from typing import Any

PURE = ("aggregation", "cohort", "federation", "losses", "models")  # below fedlabels
HEAVY = ("flwr", "ray", "hydra", "omegaconf", "rich", "sklearn")  # what a device may lack


class Without:
    """A finder that finds everything but the heavy libraries, as if they were not installed."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        heavy = name.split(".")[0] in HEAVY
        return None if heavy else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


class Same:
    columns = 0

    def __call__(self, x: Any, u: Any) -> Any:
        return x


def import_all() -> int:
    """Import every module of the pure layers and of the clients; return how many."""
    count = 0
    for name in [*(f"fedlabels.{part}" for part in PURE), "fedlabels.clients"]:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
            count += 1
    return count


def train(name: str) -> tuple[Any, Any, Any]:
    """Run one round of a client; return a tensor before it, after it looped, and stacked."""
    import numpy as np
    import torch

    from fedlabels import clients
    from fedlabels import cohort as contract
    from fedlabels.models import build

    spec = contract.DataSpec((1, 4, 4), 3)
    x = torch.linspace(0, 1, 12 * 16, dtype=torch.float64).reshape(12, 1, 4, 4)
    views = {"weak": Same(), "strong": Same()}
    source = contract.TensorSource(x, torch.tensor(0.5), torch.tensor(0.25), views)
    parts = np.arange(12).reshape(2, 6)
    shards = [contract.Shard(k, p[:2], np.array([0, 2]), p[2:]) for k, p in enumerate(parts)]
    client = clients.build({"name": name})
    nets = contract.Nets(
        lambda: client.nets(build("mlp", spec, hidden=(5,)), spec), 0, torch.float64
    )
    start = nets["model"].init
    request = contract.FitRequest("train", 1, 1, shared={"model": start})

    def fit(kind: Any, group: Any) -> Any:
        cohort = kind(spec=spec, nets=nets, source=source, shards=group, seed=1, round_index=1)
        return client.fit(cohort, request).terms["model"].value["head.bias"]

    looped = torch.stack([fit(contract.LoopedCohort, [shard]) for shard in shards])
    return start["head.bias"], looped, fit(contract.StackedCohort, shards)


def main() -> None:
    """Import and train; whatever is wrong is an exception."""
    sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
    assert import_all() > 20
    import torch

    torch.set_num_threads(1)
    for name in ("fedavg", "fedprox", "fixmatch", "fedlabel"):
        start, looped, stacked = train(name)
        assert not torch.equal(looped[0], start), name
        torch.testing.assert_close(looped, stacked, rtol=0, atol=1e-9)
    assert not [m for m in sys.modules if m.split(".")[0] in HEAVY]


if __name__ == "__main__":
    main()
