"""The results as tables in Markdown, and the figures that are computed from them."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Facts = dict[str, Any]
MIB = 1 << 20
SETTLED = 20  # rounds after which memory should not grow
ENDS = 3  # looks at the memory that make up either end
NAMES = {
    "serial": "in this process",
    "ray-1": "Ray, 1 worker",
    "ray-2": "Ray, 2 workers",
    "ray-2-nodes": "cluster of 2 nodes, 1 worker each",
}


def part(name: str, facts: Facts) -> str:
    """Write one part; rows that failed say why."""
    good = [row for row in facts["rows"] if "error" not in row]
    lines = {"clients": clients, "cohorts": cohorts, "cluster": cluster, "soak": soak}[name](good)
    errors = [f"{row['place']} {row['model']}: {row['error']}" for row in facts["rows"] if
              "error" in row]  # fmt: skip
    return "\n".join([f"\n## {name}: {facts['text']}\n", *lines, *errors, ""])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def clients(rows: Sequence[Facts]) -> list[str]:
    """Write what a client costs that is not in the round; bytes are those of a client."""
    head = (
        "clients", "where", "data and dealing, s", "until round 1, s", "first round, s",
        "round, s", "report, s", "arrays, bytes", "file", "this process", "its peak", "workers",
        "shared memory",
    )  # fmt: skip
    return table(head, (client_cells(row, fewest(rows, row)) for row in rows))


def client_cells(row: Facts, least: Facts) -> list[str]:
    """Write one row of the table of clients."""
    number, times = row["clients"], ("data_and_dealing", "setup", "first", "round", "report")
    more = number - least["clients"]
    grown = [
        f"{(row['started'][key] - least['started'][key]) / more:,.0f}" if more else ""
        for key in ("driver", "peak", "workers", "store")
    ]
    return [
        f"{number:,}", NAMES[row["place"]], *(f"{row[key]:.2f}" for key in times),
        *(f"{row[key] / number:,.0f}" for key in ("arrays", "federation_file")), *grown,
    ]  # fmt: skip


def fewest(rows: Sequence[Facts], like: Facts) -> Facts:
    """Return the row of the same place with the fewest clients."""
    same = [row for row in rows if row["place"] == like["place"]]
    return min(same, key=lambda row: int(row["clients"]))


def cohorts(rows: Sequence[Facts]) -> list[str]:
    """Write times by cohort size."""
    head = ("model", "where", "clients a round", "round, s", "ms a client", "peak, MiB",
            "peak of a worker, MiB", "shared memory, MiB")  # fmt: skip
    return table(head, map(cohort_cells, rows))


def cohort_cells(row: Facts) -> list[str]:
    """Write one row of the table of cohorts."""
    peaks = [row["last"][key] / MIB for key in ("peak", "worker_peak", "store")]
    return [
        row["model"], NAMES[row["place"]], f"{row['cohort']:,}", f"{row['round']:.3f}",
        f"{1000 * row['round'] / row['cohort']:.2f}", *(f"{peak:,.0f}" for peak in peaks),
    ]  # fmt: skip


def cluster(rows: Sequence[Facts]) -> list[str]:
    """Write what a round costs beside its training, and whether the bits are the same."""
    head = (
        "model", "where", "until round 1, s", "round, ms", "beside training, ms", "at least", "bits"
    )  # fmt: skip
    return table(head, (cluster_cells(row, alone(rows, row)) for row in rows))


def cluster_cells(row: Facts, serial: Facts | None) -> list[str]:
    """Write one row of the table of the cluster."""
    same = ""
    if serial is not None:
        same = "same" if row["model_sha256"] == serial["model_sha256"] else "OTHER"
    times = (f"{1000 * row[key]:.0f}" for key in ("round", "outside", "outside_least"))
    return [row["model"], NAMES[row["place"]], f"{row['setup']:.1f}", *times, same]


def alone(rows: Sequence[Facts], like: Facts) -> Facts | None:
    """Return the row of the same work in one process."""
    work = ("model", "clients", "cohort")
    for row in rows:
        if row["place"] == "serial" and all(row[key] == like[key] for key in work):
            return row
    return None


def soak(rows: Sequence[Facts]) -> list[str]:
    """Write how memory grew and what was left behind."""
    head = ("where", "rounds", "this process, MiB", "grown since round 20",
            "workers, MiB", "grown", "shared memory, MiB", "grown", "left behind")  # fmt: skip
    return table(head, map(soak_cells, rows))


def soak_cells(row: Facts) -> list[str]:
    """Write one row of the table of the soak."""
    cells = [NAMES[row["place"]], str(row["samples"][-1]["round"])]
    for key in ("driver", "workers", "store"):
        cells += [f"{row['samples'][-1][key] / MIB:.1f}", f"{growth(row, key) / MIB:+.2f}"]
    return [*cells, left(row["left"])]


def growth(row: Facts, key: str) -> float:
    """Return the bytes that came between the settled rounds and the end, by medians."""
    settled = [look[key] for look in row["samples"] if look["round"] >= SETTLED]
    return float(median(settled[-ENDS:]) - median(settled[:ENDS]))


def left(found: Facts) -> str:
    """Name what was left behind."""
    counts = {name: count for name, count in found.items() if name != "names" and count}
    parts = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()]
    return ", ".join(parts) or "nothing"
