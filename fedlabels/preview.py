"""Look at a federation before anything runs: ``python -m fedlabels.preview ...``."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels import clients
from fedlabels.answers import JSON, alone, write_json
from fedlabels.data import ArrayDataset, DataSource
from fedlabels.errors import FedLabelsError
from fedlabels.federation import Federation, suspicions
from fedlabels.federation.summary import class_counts
from fedlabels.federation.suspicion import LISTED
from fedlabels.report import Holdings, write_preview
from fedlabels.run.console import reading_shown
from fedlabels.run.data import build_data, read_data, sample_of, samples_of, views_of
from fedlabels.run.signals import INTERRUPTED, terminable
from fedlabels.settings.config import check
from fedlabels.settings.mistakes import composed

USAGE = """usage: fedlabels preview [KEY=VALUE ...] [picture=FILE.html] [--json]

Shows who would hold what under these settings of fedlabels run, and what is suspicious about it:
a table here, a page with a picture in FILE.html (preview.html if not given). Nothing is trained.
--json: one object in place of the table.

  fedlabels preview dataset=fashion_mnist partition=dirichlet \\
      partition.alpha=0.1 labels=class_mismatch labels.fraction=0.05
"""
PICTURE = "picture="
_SHOWN = ("dataset", "clients", "seed", "partition", "labels", "long_tail", "label_noise", "shift")


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``python -m fedlabels.preview``.

    Returns
    -------
    int
        Exit status: 0, 2 after an error that was explained, or 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    machine, given = JSON in arguments, [a for a in arguments if a != JSON]
    pictures = [a.removeprefix(PICTURE) for a in given if a.startswith(PICTURE)]
    overrides = [a for a in given if not a.startswith(PICTURE)]
    picture = Path(pictures[-1] if pictures else "preview.html")
    status, said = 0, ""
    try:
        with terminable(), reading_shown():
            if machine:
                with alone() as answers:
                    write_json(look(overrides, picture).facts(), answers)
            else:
                sys.stdout.write(preview(overrides, picture))
    except (FedLabelsError, OSError) as error:
        status, said = 2, f"error: {error}"
    except KeyboardInterrupt:
        status, said = INTERRUPTED, "stopped"
    if status and machine:
        write_json({"error": said.removeprefix("error: ")})
    elif status:
        sys.stderr.write(f"{said}\n")
    return status


def preview(overrides: Sequence[str], picture: Path) -> str:
    """Build a federation, write its page and describe it.

    Parameters
    ----------
    overrides : sequence of str
        Settings of ``run_sim.py``.
    picture : Path
        The page; replaced if it exists.

    Returns
    -------
    str
        A table and what is suspicious, as lines.

    Raises
    ------
    FedLabelsError
        If a setting is not allowed or data are missing.
    """
    began = time.perf_counter()
    text = look(overrides, picture).text()
    return f"{text}\npicture: {picture}   ({time.perf_counter() - began:.1f} s)\n"


def look(overrides: Sequence[str], picture: Path) -> "Look":
    """Do what `preview` does, for words or for programs."""
    seen = dealt(overrides)
    write_preview(
        picture,
        f"{seen.train.name}, {len(seen.federation):,} clients",
        seen.story,
        seen.holdings(),
        list(seen.train.class_names),
        pairs=seen.pairs,
        notes=seen.notes,
        rows=seen.rows,
        domains=[(name, f"{held:,}", f"{holders:,}") for name, held, holders in seen.domains()],
    )
    return replace(seen, picture=picture)


def dealt(overrides: Sequence[str]) -> "Look":
    """Build a federation; no page of it is written."""
    config = _composed(overrides)
    read = read_data(config)
    views = views_of(config, read)
    source, federation = build_data(config, read, rendered=False)
    pairs = [("one sample", sample_of(source.train)), *describe(federation, source.train)]
    if "fill" in views:
        pairs.insert(1, ("views fill with", f"{views['fill']:g} (0 black, 1 white)"))
    rows = [(k, str(v)) for key in _SHOWN for k, v in _flat(key, config[key])]
    notes = _notes(config, source, federation)
    return Look(_story(config), source.train, federation, pairs, notes, rows)


@dataclass(frozen=True)
class Look:
    """What a preview shows.

    Parameters
    ----------
    story : str
        The rules, in words.
    train : ArrayDataset
        The training set.
    federation : Federation
        Who holds what.
    pairs : list of (str, str)
        Numbers with their names.
    notes : list of str
        What is suspicious.
    rows : list of (str, str)
        Settings and values.
    picture : Path or None
        The page, if one was written.
    """

    story: str
    train: ArrayDataset
    federation: Federation
    pairs: list[tuple[str, str]]
    notes: list[str]
    rows: list[tuple[str, str]]
    picture: Path | None = None

    def holdings(self) -> Holdings:
        """Return samples by client and class."""
        return _holdings(self.federation)

    def text(self) -> str:
        """Return a table and what is suspicious, as lines."""
        width = max(len(name) for name, _ in self.pairs)
        lines = [self.story, "", *(f"  {name:<{width}}  {value}" for name, value in self.pairs), ""]
        for name, samples, holders in self.domains():
            lines.append(f"  domain {name}: {samples:,} samples, {holders:,} clients")
        lines += [f"  ! {note}" for note in self.notes] or ["  Nothing odd was found."]
        return "\n".join([*lines, ""])

    def facts(self) -> dict[str, Any]:
        """Return the same for programs: the numbers of `Federation.summary`, and what is beside."""
        tests = self.federation.test.sizes
        return {
            "dataset": self.train.name,
            "sample": sample_of(self.train),
            "story": self.story,
            "samples_of_dataset": len(self.train),
            "classes": self.train.class_names,
            **self.federation.summary(),
            "share_without_local_label": _uncovered(self.federation),
            "test_samples": int(tests.sum()),
            "clients_without_test_samples": int((tests == 0).sum()),
            "domains": [
                {"name": name, "samples": held, "clients": holders}
                for name, held, holders in self.domains()
            ],
            **({"names": list(self.federation.names)} if self.federation.names else {}),
            "notes": self.notes,
            "hash": self.federation.hash,
            "picture": self.picture,
        }

    def domains(self) -> list[tuple[str, int, int]]:
        """Return name, samples and clients of every domain."""
        train = self.train
        if train.domain is None:
            return []
        held, owners = self.federation.held.index, self.federation.held.owners
        domains = []
        for number, name in enumerate(train.domain_names):
            inside = train.domain[held] == number
            domains.append((name, int(inside.sum()), len(np.unique(owners[inside]))))
        return domains


def _notes(config: Mapping[str, Any], source: DataSource, federation: Federation) -> list[str]:
    client = clients.build(clients.settings_of(config))
    train, tests = samples_of(source.train), samples_of(source.test)
    return suspicions(federation, tests, train=train, sees_all_labels=client.sees_all_labels)


def describe(federation: Federation, train: ArrayDataset) -> list[tuple[str, str]]:
    """Return the numbers of a federation with their names.

    Parameters
    ----------
    federation : Federation
        Who holds what.
    train : ArrayDataset
        The training set.
    """
    s = federation.summary()
    labels = [str(n) for n in s["labeled_per_class"]]
    shown = " ".join(labels[:20]) + (" ..." if len(labels) > 20 else "")
    share = s["labeled"] / max(len(federation.held.index), 1)
    pairs = [
        ("samples dealt", f"{s['samples']:,} of {len(train):,}"),
        ("clients", f"{s['clients']:,}"),
        *_names(federation),
        ("size min / median / max", f"{s['size_min']} / {s['size_median']:g} / {s['size_max']}"),
        ("size, coefficient of variation", f"{s['size_cv']:.2f}"),
        ("effective classes, mean", f"{s['effective_classes']:.2f} of {federation.num_classes}"),
        ("total variation, mean of pairs", f"{s['total_variation']:.3f}"),
        ("labeled", f"{s['labeled']:,} ({100 * share:.1f} %)"),
        ("labels min / median / max", _spread(s)),
        ("labels per class", shown),
        ("clients without labels", f"{s['clients_without_labels']:,}"),
        ("samples of a class without local label", f"{100 * _uncovered(federation):.0f} %"),
    ]
    if federation.test.sizes.any():
        sizes = federation.test.sizes
        pairs += [
            ("own test samples", f"{sizes.min()} / {np.median(sizes):g} / {sizes.max()}"),
            ("clients without own test samples", f"{int((sizes == 0).sum()):,}"),
        ]
    return [*pairs, ("hash", federation.hash[:16])]


def _names(federation: Federation) -> list[tuple[str, str]]:
    """Return what the clients are called, where they have names."""
    named = [f"{number} {name}" for number, name in enumerate(federation.names[:LISTED])]
    more = " ..." if len(federation.names) > LISTED else ""
    return [("names of clients", ", ".join(named) + more)] if named else []


def _uncovered(federation: Federation) -> float:
    """Return the share of samples whose class has no label on the client that holds them."""
    held = _holdings(federation)
    uncovered = int(held.total[held.labeled == 0].sum())
    return uncovered / max(int(held.total.sum()), 1)


def _spread(summary: Mapping[str, Any]) -> str:
    return " / ".join(f"{summary[f'labeled_{k}']:g}" for k in ("min", "median", "max"))


def _holdings(federation: Federation) -> Holdings:
    number, classes = len(federation), federation.num_classes
    labeled, total = (
        class_counts(part.owners, federation.labels[part.index], number, classes)
        for part in (federation.labeled, federation.held)
    )
    hidden = federation.labels[federation.held.index] < 0
    unknown = np.bincount(federation.held.owners[hidden], minlength=number)
    return Holdings(labeled, total, unknown, federation.names)


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    settings = composed(overrides)
    check(settings, runs=False)
    return settings


def _story(config: Mapping[str, Any]) -> str:
    def words(key: str) -> str:
        rest = {
            k: v for k, v in config[key].items() if k != "name" and v not in (None, False, {}, [])
        }
        listed = ", ".join(f"{k}={v}" for k, v in rest.items() if v not in (0, 0.0))
        return f"{config[key]['name']} ({listed})" if listed else str(config[key]["name"])

    return f"partition {words('partition')}; labels {words('labels')}; seed {config['seed']}"


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(key, value)]
    return [pair for k, v in value.items() for pair in _flat(f"{key}.{k}", v)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
