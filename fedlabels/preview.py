"""Look at a federation before anything runs: ``python -m fedlabels.preview ...``."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedlabels import clients
from fedlabels.data import ArrayDataset, DataSource
from fedlabels.errors import FedLabelsError
from fedlabels.federation import Federation, suspicions
from fedlabels.federation.summary import class_counts
from fedlabels.report import Holdings, write_preview
from fedlabels.run.data import build_data, read_data, sample_of, samples_of, views_of
from fedlabels.run.signals import INTERRUPTED, terminable
from fedlabels.settings.config import check
from fedlabels.settings.mistakes import composed

USAGE = """usage: fedlabels preview [KEY=VALUE ...] [picture=FILE.html]

Shows who would hold what under these settings of fedlabels run, and what is suspicious about it:
a table here, a page with a picture in FILE.html (preview.html if not given). Nothing is trained.

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
    pictures = [a.removeprefix(PICTURE) for a in arguments if a.startswith(PICTURE)]
    overrides = [a for a in arguments if not a.startswith(PICTURE)]
    try:
        with terminable():
            sys.stdout.write(preview(overrides, Path(pictures[-1] if pictures else "preview.html")))
    except (FedLabelsError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    return 0


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
    config = _composed(overrides)
    read = read_data(config)
    views = views_of(config, read)
    source, federation = build_data(config, read, rendered=False)
    pairs = [("one sample", sample_of(source.train)), *describe(federation, source.train)]
    if "fill" in views:
        pairs.insert(1, ("views fill with", f"{views['fill']:g} (0 black, 1 white)"))
    notes = _notes(config, source, federation)
    story = _story(config)
    rows = [(k, str(v)) for key in _SHOWN for k, v in _flat(key, config[key])]
    page = write_preview(
        picture,
        f"{source.train.name}, {len(federation):,} clients",
        story,
        _holdings(federation),
        list(source.train.class_names),
        pairs=pairs,
        notes=notes,
        rows=rows,
        domains=_domains(federation, source.train),
    )
    width = max(len(name) for name, _ in pairs)
    lines = [story, "", *(f"  {name:<{width}}  {value}" for name, value in pairs), ""]
    for name, samples, holders in _domains(federation, source.train):
        lines.append(f"  domain {name}: {samples} samples, {holders} clients")
    lines += [f"  ! {note}" for note in notes] or ["  Nothing odd was found."]
    seconds = time.perf_counter() - began
    return "\n".join([*lines, "", f"picture: {page}   ({seconds:.1f} s)", ""])


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


def _uncovered(federation: Federation) -> float:
    """Return the share of samples whose class has no label on the client that holds them."""
    held = _holdings(federation)
    uncovered = int(held.total[held.labeled == 0].sum())
    return uncovered / max(int(held.total.sum()), 1)


def _spread(summary: Mapping[str, Any]) -> str:
    return " / ".join(f"{summary[f'labeled_{k}']:g}" for k in ("min", "median", "max"))


def _domains(federation: Federation, train: ArrayDataset) -> list[tuple[str, str, str]]:
    """Return name, samples and clients of every domain."""
    if train.domain is None:
        return []
    held, owners = federation.held.index, federation.held.owners
    domains = []
    for number, name in enumerate(train.domain_names):
        inside = train.domain[held] == number
        domains.append((name, f"{int(inside.sum()):,}", f"{len(np.unique(owners[inside])):,}"))
    return domains


def _holdings(federation: Federation) -> Holdings:
    number, classes = len(federation), federation.num_classes
    labeled, total = (
        class_counts(part.owners, federation.labels[part.index], number, classes)
        for part in (federation.labeled, federation.held)
    )
    hidden = federation.labels[federation.held.index] < 0
    unknown = np.bincount(federation.held.owners[hidden], minlength=number)
    return Holdings(labeled, total, unknown)


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
