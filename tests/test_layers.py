"""The layers of the project: who may import whom, what nobody may do, how long files may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs._rooms import (
    CALLED,
    GROUND,
    LOADED,
    TYPED,
    Project,
    circles,
    closed_by,
    imports,
    layers,
    name_of,
    picture,
    room_of,
)
from tests.waiting import LIMIT

ROOT = Path(__file__).parents[1]
PROJECT = Project(ROOT)
MAX_LINES = 500

# Room -> rooms that it may import; every room may import itself and the ground.
ARROWS = {
    "fedlabels.cohort": set(),
    "fedlabels.losses": set(),
    "fedlabels.aggregation": set(),
    "fedlabels.data": set(),
    "fedlabels.models": {"fedlabels.cohort"},
    "fedlabels.federation": {"fedlabels.data"},  # pickled partitions are read as pickled data are
    # What a round is: who does it and who asks for it know this, and it knows neither.
    "fedlabels.rounds": {"fedlabels.cohort"},
    "fedlabels.worker": {
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.models",
        "fedlabels.rounds",
    },
    "fedlabels.simulation": {
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.rounds",
        "fedlabels.worker",
    },
    "fedlabels.clients": {"fedlabels.cohort", "fedlabels.losses", "fedlabels.models"},
    "fedlabels.strategies": {
        "fedlabels.aggregation",
        "fedlabels.cohort",
        "fedlabels.losses",
        "fedlabels.models",
        "fedlabels.rounds",
    },
    "fedlabels.settings": {
        "fedlabels.clients",
        "fedlabels.strategies",
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.models",
        "fedlabels.worker",
    },
    "fedlabels.report": set(),
    "fedlabels.run": {
        "fedlabels.clients",
        "fedlabels.strategies",
        "fedlabels.aggregation",
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.models",
        "fedlabels.report",
        "fedlabels.rounds",
        "fedlabels.settings",
        "fedlabels.simulation",
        "fedlabels.worker",
    },
    # A device is a worker with one shard; the server is the round loop with another grid.
    "fedlabels.deploy": {
        "fedlabels.clients",
        "fedlabels.strategies",
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.rounds",
        "fedlabels.run",
        "fedlabels.settings",
        "fedlabels.worker",
    },
    # A finished run's model: loading it needs no run and no data.
    "fedlabels.use": {
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.models",
        "fedlabels.run",
        "fedlabels.worker",
    },
    "fedlabels.sweep": {
        "fedlabels.report",
        "fedlabels.rounds",
        "fedlabels.run",
        "fedlabels.settings",
        "fedlabels.simulation",
    },
    "run_sim": {"fedlabels.command"},
    # What programs and notebooks use: a run as the command does it, a report as objects.
    "fedlabels.api": {
        "fedlabels.federation",
        "fedlabels.preview",
        "fedlabels.report",
        "fedlabels.run",
        "fedlabels.settings",
        "fedlabels.use",
    },
    # Commands: they stand above all that they show.
    "fedlabels.__main__": {"fedlabels.command"},
    "fedlabels.command": {
        "fedlabels.clients",
        "fedlabels.strategies",
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.deploy",
        "fedlabels.federation",
        "fedlabels.models",
        "fedlabels.rounds",
        "fedlabels.run",
        "fedlabels.settings",
        "fedlabels.settings.reference",
        "fedlabels.worker",
    },
    "fedlabels.preview": {
        "fedlabels.clients",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.report",
        "fedlabels.run",
        "fedlabels.settings",
    },
    "fedlabels.settings.reference": {
        "fedlabels.clients",
        "fedlabels.strategies",
        "fedlabels.cohort",
        "fedlabels.data",
        "fedlabels.federation",
        "fedlabels.models",
        "fedlabels.run",
        "fedlabels.settings",
        "fedlabels.simulation",
        "fedlabels.worker",
    },
}

# What Flower documents; everything else of it, and every underscore, is private.
PUBLIC_FLOWER = {
    "flwr",
    "flwr.app",
    "flwr.app.exception",
    "flwr.clientapp",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
}
COMPAT = "fedlabels/rounds/flower_compat.py"
HYDRA = (
    "fedlabels/deploy/", "fedlabels/preview.py", "fedlabels/run/", "fedlabels/settings/",
    "fedlabels/sweep/", "fedlabels/command/",
)  # fmt: skip
# Where a library that not everybody has may be imported.
ONLY_IN = {
    "ray": ("fedlabels/simulation/ray_backend.py", "fedlabels/sweep/on_ray.py"),
    "hydra": HYDRA,
    "omegaconf": HYDRA,
    "rich": ("fedlabels/run/console.py",),
    "matplotlib": ("fedlabels/report/figure_files.py",),
    "onnx": ("fedlabels/use/export.py",),
    "onnxruntime": ("fedlabels/use/export.py",),
    "onnxscript": ("fedlabels/use/export.py",),
    "pandas": ("fedlabels/api/table.py",),
    "mlflow": ("fedlabels/run/callbacks/trackers/",),
    "tensorboard": ("fedlabels/run/callbacks/trackers/",),
    "wandb": ("fedlabels/run/callbacks/trackers/",),
    "sklearn": ("fedlabels/data/",),
    "flwr": (
        "fedlabels/rounds/",
        "fedlabels/simulation/",
        "fedlabels/worker/",
        "fedlabels/run/",
        "fedlabels/deploy/",
        "fedlabels/strategies/",
    ),
}
PRINTS = ("fedlabels/run/console.py", "fedlabels/deploy/__main__.py")
# Functions with a global effect on random numbers -> the files that may call them.
SEEDED_NETS, STOCK_GUARD = "fedlabels/cohort/net.py", "fedlabels/strategies/support/guard.py"
# Draws of a published code, from a legacy generator of its own.
LEGACY_DRAWS = "fedlabels/federation/partitions/fedloge.py"
NUMPY_RANDOM_TYPES = {"default_rng", "SeedSequence", "Generator", "PCG64", "Philox", "BitGenerator"}
TORCH_GLOBAL = {
    "torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.random.seed",
    "torch.set_rng_state", "torch.random.set_rng_state", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all", "torch.rand", "torch.randn", "torch.randint", "torch.randperm",
    "torch.bernoulli", "torch.multinomial", "torch.normal",
}  # fmt: skip


# ---- the source


@cache
def files() -> tuple[str, ...]:
    """Return the source files as paths relative to the root."""
    return tuple(path.relative_to(ROOT).as_posix() for path in PROJECT.files.values())


def tree(file: str) -> ast.Module:
    """Return the syntax tree of a file."""
    return PROJECT.trees[name_of(Path(file))]


def qualified_calls(module: ast.AST) -> Iterator[str]:
    """Yield the called functions by their full names, import aliases resolved."""
    names = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom):
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            if first in names or not rest:
                yield f"{names.get(first, first)}.{rest}".rstrip(".")


def global_randomness(module: ast.AST, file: str) -> set[str]:
    """Return the calls that draw from, or seed, a generator that nobody passed."""
    bad = set()
    for call in qualified_calls(module):
        package, _, function = call.rpartition(".")
        numpy = package == "numpy.random" and function not in NUMPY_RANDOM_TYPES
        python = package == "random" and function not in ("Random", "SystemRandom")
        if file == LEGACY_DRAWS and call == "numpy.random.RandomState":
            continue
        if (numpy or python) and file != STOCK_GUARD:
            bad.add(call)
        if call in TORCH_GLOBAL and file != SEEDED_NETS:
            bad.add(call)
    return bad


def private_flower(module: ast.AST) -> set[str]:
    """Return the imports of names of Flower that it does not document."""
    bad = set()
    for made in imports(module):
        package = made.source.split(".")[0]
        if package == "flwr" and (made.source not in PUBLIC_FLOWER or made.name.startswith("_")):
            bad.add(f"{made.source}.{made.name}")
    return bad


# ---- arrows


@pytest.mark.parametrize("file", files())
def test_arrows_point_one_way(file: str) -> None:
    room = room_of(name_of(Path(file)))
    assert room in GROUND | ARROWS.keys(), f"{room} is new: say in ARROWS what it may import"
    assert PROJECT.arrows(tree(file)) - GROUND - {room} <= ARROWS.get(room, set())


def test_no_circle_is_allowed_and_none_is_there_when_modules_are_loaded() -> None:
    assert circles(ARROWS) == []
    assert circles(PROJECT.modules(LOADED)) == []


def test_the_picture_shows_the_arrows_that_there_are() -> None:
    shown = (ROOT / "docs" / "pictures" / "rooms.svg").read_text(encoding="utf-8")
    assert shown == picture(PROJECT), "arrows have changed: python docs/_rooms.py draws them"


def test_the_picture_and_the_circles_follow_the_imports(tmp_path: Path) -> None:
    sources = {
        "fedlabels/__init__.py": "",
        "fedlabels/low/__init__.py": "from fedlabels.low.inner import x",
        "fedlabels/low/inner.py": "x = 1",
        "fedlabels/high.py": "from fedlabels.low.inner import x",
        "run_sim.py": "import fedlabels.high",
    }

    def read(**changed: str) -> Project:
        for file, source in {**sources, **changed}.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(source)
        return Project(tmp_path)

    flat = read()
    height = layers(flat.rooms)
    assert height["fedlabels.low"] < height["fedlabels.high"] < height["run_sim"]
    assert "run_sim: fedlabels.high\n" in picture(flat)
    assert picture(flat) == picture(read())
    more = read(**{"run_sim.py": "import fedlabels.high\ndef f():\n    import fedlabels.low"})
    assert picture(more) != picture(flat)
    assert picture(more).count("<path") == picture(flat).count("<path")  # an arrow that is implied
    late = read(**{"fedlabels/low/inner.py": "def f():\n    import fedlabels.high"})
    assert circles(late.modules(LOADED)) == []
    assert closed_by(late.modules(LOADED), late.modules(CALLED)) == [
        "low.inner -> high -> low.inner"
    ]
    assert circles(late.rooms) == ["high -> low -> high, among high, low"]
    typed = read(**{"fedlabels/low/inner.py": "if TYPE_CHECKING:\n    import fedlabels.high"})
    assert closed_by(typed.modules(LOADED), typed.modules(CALLED)) == []
    assert len(closed_by(typed.modules(LOADED), typed.modules(TYPED))) == 1
    # high waits for the package that the module lies in
    package = read(**{"fedlabels/low/__init__.py": "from fedlabels.high import x"})
    assert circles(package.modules(LOADED)) == ["high -> low -> high, among high, low"]


@pytest.mark.parametrize("file", [f for f in files() if f != COMPAT])
def test_only_the_compatibility_module_touches_private_names_of_flower(file: str) -> None:
    assert private_flower(tree(file)) == set()


@pytest.mark.parametrize("file", files())
def test_libraries_are_imported_only_where_they_belong(file: str) -> None:
    for made in imports(tree(file)):
        allowed = ONLY_IN.get(made.source.split(".")[0])
        assert allowed is None or file.startswith(allowed), f"{file} imports {made.source}"


@pytest.mark.parametrize("file", files())
def test_only_the_console_prints(file: str) -> None:
    assert file in PRINTS or "print" not in set(qualified_calls(tree(file)))


@pytest.mark.parametrize("file", files())
def test_no_global_randomness(file: str) -> None:
    assert global_randomness(tree(file), file) == set()


def test_the_checks_see_what_they_look_for() -> None:
    source = """
import numpy as np
import random as r
from torch import manual_seed
from numpy import random
from flwr.server import strategy
from flwr.app import _inner
from fedlabels import report
from fedlabels.run.loop import x

def f(rng):
    np.random.rand(3)
    np.random.default_rng(3).normal()
    r.shuffle([])
    manual_seed(3)
    random.permutation(3)
    rng.permutation(3)
    print("x")
"""
    module = ast.parse(source)
    assert global_randomness(module, "x.py") == {
        "numpy.random.rand",
        "random.shuffle",
        "torch.manual_seed",
        "numpy.random.permutation",
    }
    assert private_flower(module) == {"flwr.server.strategy", "flwr.app._inner"}
    assert PROJECT.arrows(module) == {"fedlabels.report", "fedlabels.run"}
    assert "print" in set(qualified_calls(module))
    assert len(files()) > 60


# ---- house style


@pytest.mark.parametrize("file", files())
def test_files_are_short(file: str) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def functions(node: ast.AST, public: bool = True) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """Yield functions and methods, each with whether it is reached by public names only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, public and not child.name.startswith("_")
            yield from functions(child, public=False)
        else:
            hidden = isinstance(child, ast.ClassDef) and child.name.startswith("_")
            yield from functions(child, public and not hidden)


@pytest.mark.parametrize("file", files())
def test_every_public_name_has_a_docstring(file: str) -> None:
    module = tree(file)
    assert ast.get_docstring(module), f"{file} has no docstring"
    classes = [c for c in ast.walk(module) if isinstance(c, ast.ClassDef) and c.name[0] != "_"]
    named = [function for function, public in functions(module) if public]
    assert [n.name for n in [*classes, *named] if not ast.get_docstring(n)] == []


@pytest.mark.parametrize("file", files())
def test_every_function_says_what_it_takes_and_returns(file: str) -> None:
    bare = set()
    for function, _ in functions(tree(file)):
        # mypy takes an __init__ with typed arguments for one that returns None
        if function.returns is None and function.name != "__init__":
            bare.add(function.name)
        every = function.args
        given = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
        for argument in given:
            if argument and argument.annotation is None and argument.arg not in ("self", "cls"):
                bare.add(f"{function.name}({argument.arg})")
    assert bare == set()


# ---- a device: no Flower, no Ray, no Hydra


def test_clients_run_without_flower_ray_and_hydra() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.device_run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
