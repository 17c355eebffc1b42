"""The page of all settings, made from the code: ``python -m fedlabels.settings.reference``.

Keys, types and defaults come from the schemas that a run is checked against, meanings from the
docstrings of the classes that declare them: docs/settings.md cannot say anything else.
"""

import argparse
import dataclasses
import inspect
import json
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

import fedlabels
from fedlabels import clients, strategies
from fedlabels.cohort.types import EMPTY
from fedlabels.data.registry import READERS, reader_of
from fedlabels.data.shift import Shift
from fedlabels.data.views import make_views
from fedlabels.effect import declared
from fedlabels.federation import (
    PARTITIONS,
    POLICIES,
    LabelNoise,
    Layers,
    LongTail,
    ModelGroups,
    TestShards,
    build,
)  # fmt: skip
from fedlabels.machine.files import write_atomic
from fedlabels.models import MODELS
from fedlabels.models.base import with_feature_dim
from fedlabels.models.recipe import Recipe, make_norm
from fedlabels.models.registry import STANDARDIZATION
from fedlabels.run.callbacks.decomposition import Decomposition
from fedlabels.run.callbacks.profile import Profile
from fedlabels.settings import config as schema
from fedlabels.settings import groups
from fedlabels.settings.docstrings import Docs, explained, markdown, parameters, summary
from fedlabels.settings.hashing import flatten
from fedlabels.settings.presets import CONFIGS, described
from fedlabels.settings.unread import CHOOSER
from fedlabels.simulation.backend import SimulationBackend
from fedlabels.simulation.ray_backend import RaySettings
from fedlabels.worker.worker import WorkerSpec

PAGE = Path(fedlabels.__file__).parents[1] / "docs" / "settings.md"
COMMAND = "python -m fedlabels.settings.reference"

# A schema whose fields are handed on as they are: the class that takes them says what they mean.
TAKEN_BY: Mapping[type, tuple[Any, ...]] = {
    groups.ArchitecturesConfig: (ModelGroups,),
    groups.BackendConfig: (WorkerSpec, RaySettings, SimulationBackend),
    groups.DecompositionConfig: (Decomposition,),
    groups.LabelNoiseConfig: (LabelNoise,),
    groups.LongTailConfig: (LongTail,),
    groups.ProfileConfig: (Profile,),
    groups.ShiftConfig: (Shift,),
    groups.TestShardsConfig: (TestShards,),
}
PRESETS = ("method", "dataset", "preset", "sweep", "callbacks", "tracker")
_HEAD = "| key | type | default | meaning |\n|---|---|---|---|"
_HEAD_SHARED = "| key | of | type | default | meaning |\n|---|---|---|---|---|"
_REQUIRED = "must be given"


@dataclass(frozen=True)
class Row:
    """One setting.

    Parameters
    ----------
    key : str
        Dotted, as on the command line.
    kind : str
        Its type, or the words that it may be.
    default : str
        As YAML.
    meaning : str
        Markdown; empty where no docstring has it.
    """

    key: str
    kind: str
    default: str
    meaning: str

    def line(self, of: str = "") -> str:
        """Return the line of a table."""
        cells = [f"`{self.key}`", *([of] if of else []), self.kind, self.default, self.meaning]
        escaped = (cell.replace("|", r"\|") for cell in cells)
        return f"| {' | '.join(escaped)} |"


@dataclass(frozen=True)
class Section:
    """One group of settings.

    Parameters
    ----------
    title : str
        Heading.
    text : str
        What the group is.
    rows : tuple of Row
        Settings that are always there.
    options : dict of str to (str, tuple of Row)
        Of a group with a choice: name -> what it is, and its settings.
    choice : str
        How an option is named on the command line, with ``{}`` for its name.
    """

    title: str
    text: str
    rows: tuple[Row, ...] = ()
    options: Mapping[str, tuple[str, tuple[Row, ...]]] = dataclasses.field(
        default_factory=lambda: EMPTY
    )
    choice: str = ""

    def every(self) -> Iterator[Row]:
        """Yield all settings, also those of every option."""
        yield from self.rows
        for _, rows in self.options.values():
            yield from rows

    def _of(self, names: Sequence[str]) -> str:
        """Name some options, or the few others where that is shorter."""
        others = [name for name in self.options if name not in names]
        if not others:
            return "all"
        few = len(others) < len(names) and len(others) < 3
        listed = ", ".join(f"`{name}`" for name in (others if few else names))
        return f"all but {listed}" if few else listed

    def lines(self) -> Iterator[str]:
        """Yield the section as Markdown."""
        yield from (f"## {self.title}", "", self.text, "")
        if self.rows:
            yield from (_HEAD, *(row.line() for row in self.rows), "")
        owners: dict[Row, list[str]] = {}
        for name, (_, rows) in self.options.items():
            for row in rows:
                owners.setdefault(row, []).append(name)
        shared = {row: names for row, names in owners.items() if len(names) > 1}
        if shared:
            yield from ("Settings that several have, with one meaning and one default:", "")
            yield _HEAD_SHARED
            for row, names in shared.items():
                yield row.line(self._of(names))
            yield ""
        for name, (text, rows) in self.options.items():
            yield from (f"### `{self.choice.format(name)}`", "", *([text, ""] if text else []))
            own = [row for row in rows if row not in shared]
            if own:
                yield from (_HEAD, *(row.line() for row in own), "")
            further = ", ".join(f"`{row.key}`" for row in rows if row in shared)
            if further:
                yield from (f"{'Further' if own else 'Settings'}, from above: {further}.", "")


# ---- rows


def _beside(kind: type, docs: Docs, fields: Iterable[str]) -> Docs:
    """Add to the meanings beside what other settings they count alone."""
    told, known = dict(docs), set(fields)
    for rule in declared(kind):
        needs = [f"`{k}`{n.text}" for k, n in rule.when.items() if "." in k or k in known]
        for key in known.intersection(rule.keys):
            written, meaning = told.get(key, ("", ""))
            dot = "" if not meaning or meaning.endswith(".") else "."
            told[key] = (written, f"{meaning}{dot} Only with {' or '.join(needs)}.".strip())
    return told


def _kind(hint: Any, written: str) -> str:
    """Describe a type in the words of YAML; the docstring's list of words goes first."""
    if written.startswith("{"):
        words, _, rest = written[1:].partition("}")
        listed = [f"`{word.strip().strip(chr(34))}`" for word in words.split(",")]
        return ", ".join([*listed, *(["`null`"] if "None" in rest else [])])
    if get_origin(hint) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a not in (type(None), Recipe)]
        described = dict.fromkeys(_kind(a, "") for a in inner)
        return ", ".join([*described, *(["`null`"] if type(None) in get_args(hint) else [])])
    if hint in (bool, int, float, str):
        return str(hint.__name__)
    if hint is Any or hint is None:
        return written or "any"
    return "dict" if get_origin(hint) in (dict, Mapping) else "list"


def _default(value: Any) -> str:
    if value in (dataclasses.MISSING, inspect.Parameter.empty, MISSING):
        return _REQUIRED
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    listed = list(plain) if isinstance(plain, tuple) else plain
    return f"`{listed if isinstance(listed, str) else json.dumps(listed)}`"


def _row(prefix: str, name: str, hint: Any, default: Any, docs: Docs) -> Row:
    written, meaning = docs.get(name, ("", ""))
    return Row(f"{prefix}{name}", _kind(hint, written), _default(default), markdown(meaning))


def _of_schema(kind: Any, prefix: str = "") -> Iterator[Row]:
    """Yield the settings of a structured config and of those in it."""
    docs, hints = explained(kind, TAKEN_BY.get(kind, ())), get_type_hints(kind)
    docs = _beside(kind, docs, hints)
    for entry in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from _of_schema(hints[entry.name], f"{prefix}{entry.name}.")
            continue
        made = entry.default_factory
        value = entry.default if made is dataclasses.MISSING else made()
        yield _row(prefix, entry.name, hints[entry.name], value, docs)


def _of_option(group: str, name: str, kind: type) -> tuple[Row, ...]:
    """Return the settings of an option: defaults of the schema, meanings of its class."""
    others = (build, Layers) if group == "partition" else ()
    docs, hints = explained(kind, others), get_type_hints(kind)
    node = ConfigStore.instance().load(f"{CHOOSER.get(group, group)}/{name}.yaml").node
    # a client brings both; others are put where their keys look for each other
    node = (node if group in ("client", "training") else OmegaConf.create({group: node}))[group]
    docs = _beside(kind, docs, map(str, node))
    rows = []
    for key in map(str, node):
        if key != "name":
            value = MISSING if OmegaConf.is_missing(node, key) else node[key]
            hint = hints.get(key, get_type_hints(build).get(key, float))
            rows.append(_row(f"{group}.", key, hint, value, docs))
    return tuple(rows)


def _of_model(name: str) -> tuple[Row, ...]:
    """Return the settings of a model: those of its constructor, defaults of its preset."""
    preset = yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    signature = inspect.signature(MODELS[name]).parameters
    hints = {**get_type_hints(Recipe.__init__), **get_type_hints(MODELS[name].__init__)}
    docs = explained(MODELS[name], (Recipe,))
    made = {key: entry.default for key, entry in signature.items() if key != "spec"}
    made |= {key: None for key in (*STANDARDIZATION, "feature_dim") if key not in made}
    docs["feature_dim"] = ("", _feature_dim())
    hints["feature_dim"] = int | None
    made["start"], hints["start"], docs["start"] = None, str | None, ("", START)
    docs = _beside(MODELS[name], docs, made)
    return tuple(_row("model.", k, hints[k], preset.get(k, v), docs) for k, v in made.items())


START = (
    "Run folder or ``.safetensors`` file from whose weights the run begins: the global model, and "
    "those of clients; None draws them."
)


def _norms() -> Iterator[str]:
    for source in (Recipe, make_norm):
        yield markdown(parameters(source)["norm"][1])


def _feature_dim() -> str:
    first = (inspect.getdoc(with_feature_dim) or "").split("\n")[0]
    return f"{parameters(with_feature_dim)['width'][1]} {first} None keeps the model's own width."


def _of_reader(name: str) -> tuple[Row, ...]:
    reader = reader_of(name)
    docs, hints = explained(reader), get_type_hints(reader)
    entries = inspect.signature(reader).parameters.values()
    return tuple(
        _row("dataset.options.", entry.name, hints[entry.name], entry.default, docs)
        for entry in entries
        if entry.kind is inspect.Parameter.KEYWORD_ONLY
    )


def _of_views(preset: str) -> tuple[Row, ...]:
    views: Any = make_views(preset)  # two kinds of strong view, each with a weak one of its own
    rows = []
    for view in (views["weak"], views["strong"]):
        docs, hints = explained(type(view)), get_type_hints(type(view))
        docs = _beside(type(view), docs, hints)
        for entry in dataclasses.fields(view):
            if entry.init and entry.name != "weak":
                value = getattr(view, entry.name)
                rows.append(
                    _row("dataset.view_options.", entry.name, hints[entry.name], value, docs)
                )
    return tuple(rows)


# ---- sections


def sections() -> list[Section]:
    """Return all groups of settings, in the order of the page."""
    schema.register()
    hints = get_type_hints(schema.RunConfig)
    top = [row for row in _of_schema(schema.RunConfig) if row.key in hints]
    chosen = _chosen()
    plain = [row for row in top if row.key not in {*chosen, *CHOOSER}]
    groups = {k: v for k, v in hints.items() if dataclasses.is_dataclass(v)}

    def group(name: str, **more: Any) -> Section:
        text = summary(groups[name])
        if name in chosen:
            options = ", ".join(f"`{option}`" for option in _options(name))
            text += f"\n\n`{name}=` is one of {options}; the default is `{chosen[name]}`."
        return Section(name, text, tuple(_of_schema(groups[name], f"{name}.")), **more)

    def choice(name: str, options: Mapping[str, Any], text: str) -> Section:
        head = f"{text} `{name}=NAME` chooses, the default is `{chosen[name]}`; "
        return Section(
            name, f"{head}`{name}.name` tells which one it is.", options=options,
            choice=f"{name}={{}}",
        )  # fmt: skip

    def classes(name: str, kinds: Mapping[str, type], told: Mapping[str, Any]) -> Section:
        found = {n: (summary(told[n]), _of_option(name, n, k)) for n, k in sorted(kinds.items())}
        return choice(name, found, _TEXTS[name])

    parties = {name: clients.find(name) for name in clients.names()}
    trained = {name: ("", _of_option("training", name, k)) for name, k in sorted(parties.items())}
    servers = {name: strategies.find(name) for name in strategies.names()}
    readers = {name: (summary(reader_of(name)), _of_reader(name)) for name in sorted(READERS)}
    views = {name: ("", _of_views(name)) for name in _VIEWS}
    models = {name: (summary(kind), _of_model(name)) for name, kind in sorted(MODELS.items())}
    return [
        Section("A run", summary(schema.RunConfig), tuple(plain)),
        group("dataset"),
        Section("Options of the readers", _TEXTS["reader"], options=readers, choice="dataset={}"),
        Section("Weak and strong views", _TEXTS["views"], options=views, choice="dataset.views={}"),
        classes("partition", PARTITIONS, PARTITIONS),
        classes("labels", POLICIES, POLICIES),
        *(group(name) for name in ("long_tail", "label_noise", "shift", "test_shards")),
        choice("model", models, _TEXTS["model"].format(*_norms())),
        group("architectures"),
        classes("client", parties, parties),
        Section("training", _TEXTS["training"], options=trained, choice="client={}"),
        classes("strategy", {n: s.Settings for n, s in servers.items()}, servers),
        *(group(n) for n in groups if n not in _PLACED),
    ]


_PLACED = ("dataset", "long_tail", "label_noise", "shift", "test_shards", "architectures")
_VIEWS = ("digits", "fashion", "natural", "timeseries")
_TEXTS = {
    "reader": "What `dataset.options` may hold depends on the data set; see [data](data.md).",
    "views": "What `dataset.view_options` may hold, and what each preset has. `none` has nothing.",
    "partition": "Who gets which sample; see [who holds what](heterogeneity.md).",
    "labels": "Which samples are labeled; see [who holds what](heterogeneity.md).",
    "model": "The network. `model.norm` (`Recipe`): {} {}\n\n",
    "client": "What a client does in a round. A method sets client and strategy together.",
    "training": "How a client trains in a round: one name and one meaning for all methods. The "
    "defaults are those of the method; where it counts epochs, `training.steps=10` takes their "
    "place, and the other way round. A setting that a client has no use for is refused.",
    "strategy": "What the server does in a round. A method sets client and strategy together.",
}


def _chosen() -> dict[str, str]:
    """Return the groups that config.yaml chooses an option of, and which."""
    entries = yaml.safe_load((CONFIGS / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    return {key: option for key, option in pairs if not key.startswith("override ")}


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _presets() -> Iterator[str]:
    """Yield the tables of the files that set several keys at once."""
    yield from ("## Presets", "", "A preset is a YAML file in `configs/`.", "")
    for group in PRESETS:
        yield from (f"### `{group}=`", "", "| preset | what it is | sets |", "|---|---|---|")
        for name in _options(group):
            text = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8")
            comment = _comment(text) or _namesake(name)
            yield f"| `{group}={name}` | {comment} | {', '.join(_sets(group, text))} |"
        yield ""


def _comment(text: str) -> str:
    """Return the comment that a preset begins with."""
    return markdown(described(text)[0]).replace("|", r"\|")


def _namesake(name: str) -> str:
    """Return what the strategy, client or reader of the same name says of itself."""
    if name in READERS:
        return summary(reader_of(name))
    found = [module.find(name) for module in (strategies, clients) if name in module.names()]
    return summary(found[0]) if found else ""


def _sets(group: str, text: str) -> Iterator[str]:
    """Yield what a preset sets, as on the command line."""
    content = yaml.safe_load(text) or {}
    for entry in content.pop("defaults", []):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            yield f"`{key.removeprefix('override /')}={value}`"
    varied = content.pop("hydra", {}).get("sweeper", {}).get("params", {})
    for key, value in flatten(content).items():
        if key.startswith("sweep.per_method"):
            continue  # long; the file has it
        full = key if "@package _global_" in text else f"{group}.{key}"
        yield f"`{full}={json.dumps(value) if not isinstance(value, str) else value}`"
    yield from (f"`{key}={value}`" for key, value in varied.items())


def page() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        f"<!-- Written by {COMMAND}; change the docstrings, not this page. -->",
        "",
        "Every key, as it is written on the command line: `python run_sim.py KEY=VALUE ...`. An",
        "unknown key or a wrong type is refused before anything runs. Defaults are those of the",
        "schema; a method or another preset may set others, and `config.yaml` in the run folder",
        "says what a run had. The choices of a run without any argument are",
        ", ".join(f"`{key}={value}`" for key, value in _chosen().items()) + ".",
        "",
    ]
    for section in sections():
        lines.extend(section.lines())
    lines.extend(_presets())
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it.

    Parameters
    ----------
    arguments : sequence of str
        What follows the module on the command line.

    Returns
    -------
    int
        Exit status: 0, or 1 if the page is not what would be written.
    """
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the page of all settings.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument("file", nargs="?", type=Path, default=PAGE, metavar="FILE")
    given = parser.parse_args(arguments)
    text = page()
    if not given.check:
        write_atomic(given.file, text)
        return 0
    current = given.file.read_text(encoding="utf-8") if given.file.exists() else ""
    if current == text:
        return 0
    sys.stderr.write(f"error: {given.file} is out of date; write it: {COMMAND}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
