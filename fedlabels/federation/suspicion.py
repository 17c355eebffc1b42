"""What is odd about a federation, said before anybody runs it for hours."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedlabels.federation.federation import Federation
from fedlabels.federation.ragged import Indices
from fedlabels.federation.samples import Samples
from fedlabels.federation.summary import class_counts

TINY = 10  # samples; fewer make batches and statistics of little meaning
LISTED = 10  # classes or domains named in a sentence
BIASED = -0.5  # correlation of a class's turn and the number of its holders


def suspicions(
    federation: Federation,
    test: Samples | None = None,
    *,
    train: Samples | None = None,
    sees_all_labels: bool = False,
) -> list[str]:
    """Say what may spoil or explain a result.

    Parameters
    ----------
    federation : Federation
        Who holds what.
    test : Samples or None
        The test set, where it is to be looked at, too.
    train : Samples or None
        The training set, where it is to be looked at whose samples were dealt.
    sees_all_labels : bool
        Whether the method is shown the hidden labels of the clients' samples.

    Returns
    -------
    list of str
        One sentence each; empty when nothing was found.
    """
    held = _held(federation)
    return [
        *_sizes(federation),
        *_lost(federation),
        *([] if train is None else _left_out(federation, train)),
        *([] if train is None else _drawn(federation, train)),
        *_labels(federation, sees_all_labels),
        *_cut(federation),
        *_classes(held),
        *_bias(federation, held),
        *([] if test is None else untested(test)),
        *_own_tests(federation),
        *([] if train is None or test is None else _strangers(federation, train, test)),
    ]


def untested(test: Samples) -> list[str]:
    """Say which test samples and domains no figure is over.

    Parameters
    ----------
    test : Samples
        The test set; an empty one has nothing odd.
    """
    known = test.labels >= 0
    if not len(known):
        return []
    if not known.any():
        return ["No test sample has a label: no accuracy is measured."]
    sentences = []
    if not known.all():
        sentences.append(
            f"{int((~known).sum())} of {len(known)} test samples have no label: nobody is scored "
            "on them."
        )
    absent = np.setdiff1d(np.arange(test.num_classes), test.labels[known])
    if len(absent):
        sentences.append(
            f"Classes without a test sample: {_listed([str(c) for c in absent])}; accuracies are "
            f"over the other {test.num_classes - len(absent)}."
        )
    if test.domain is not None and not known.all():
        measured = np.unique(test.domain[known])
        unmeasured = np.setdiff1d(test.domain, measured)
        if len(unmeasured):
            names = [test.domain_names[d] for d in unmeasured.tolist()]
            sentences.append(f"Domains without a label in the test set: {_listed(names)}.")
    return sentences


def _held(federation: Federation) -> Indices:
    """Count what every client holds of every class, shape (K, C)."""
    part = federation.held
    return class_counts(
        part.owners, federation.labels[part.index], len(federation), federation.num_classes
    )


def _sizes(federation: Federation) -> Iterator[str]:
    sizes = federation.held.sizes
    empty, tiny = int((sizes == 0).sum()), int(((sizes > 0) & (sizes < TINY)).sum())
    if empty:
        yield f"Clients without any sample, which never contribute: {empty}."
    if tiny:
        yield (
            f"Clients with fewer than {TINY} samples: {tiny}; partition.min_size={TINY} moves some "
            "to them."
        )
    top = np.sort(sizes)[::-1][: max(len(sizes) // 10, 1)].sum()
    if len(sizes) >= 20 and top > 0.5 * sizes.sum():
        yield f"A tenth of the clients holds {100 * top / sizes.sum():.0f} % of all samples."


def _lost(federation: Federation) -> Iterator[str]:
    partition = federation.settings.get("partition", {})
    if partition.get("name") != "flower":
        return  # ours deal every sample, or are told to leave some out
    parts = federation.labeled.index, federation.unlabeled.index, federation.server
    nobody = np.ones(len(federation.labels), dtype=bool)
    nobody[np.concatenate(parts)] = False
    if nobody.any():
        unknown = int((federation.labels[nobody] < 0).sum())
        yield (
            f"{partition.get('target')} and what lies over it leave {int(nobody.sum()):,} of "
            f"{len(nobody):,} samples to nobody, {unknown:,} of them of unknown class."
        )


def _left_out(federation: Federation, train: Samples) -> Iterator[str]:
    partition = federation.settings.get("partition", {})
    if partition.get("name") != "natural" or train.owner is None:
        return
    dealt = federation.labeled.index, federation.unlabeled.index, federation.server
    people, sizes = np.unique(train.owner, return_counts=True)
    out = ~np.isin(people, train.owner[np.concatenate(dealt)])
    if not out.any():
        return
    least = partition.get("min_size", 0)
    large = int((sizes >= least).sum())
    rest = f"clients={large} takes all"
    if large < len(people):
        rest += f" with at least partition.min_size={least} samples"
    yield (
        f"{int(out.sum()):,} of {len(people):,} people take no part, with {int(sizes[out].sum()):,}"
        f" of {len(train):,} training samples"
        f"{f'; {rest}' if large > len(federation) else ''}."
    )


def _labels(federation: Federation, sees_all_labels: bool) -> Iterator[str]:
    labels = federation.labeled.sizes
    per_class = np.bincount(
        federation.labels[federation.labeled.index], minlength=federation.num_classes
    )
    if len(federation.server):
        yield (
            f"{len(federation.server)} labeled samples lie at the server, with no client; no "
            "method here trains on them."
        )
    if sees_all_labels:
        return
    if not labels.any():
        yield (
            "No client has a label: methods that need labels at the clients cannot run, the model "
            "stays as it was drawn."
        )
        return
    without = np.flatnonzero(per_class == 0)
    if len(without):
        listed = _listed([str(c) for c in without])
        yield f"No client has a label of class {listed}: nobody can learn it from labels."
    silent = int((labels == 0).sum())
    if silent:
        yield f"Clients without a label: {silent} of {len(labels)}."
    wrong = int((federation.client_labels != federation.labels[federation.labeled.index]).sum())
    if wrong:
        yield (
            f"{wrong} of {len(federation.client_labels)} labels are wrong "
            f"({100 * wrong / len(federation.client_labels):.1f} %)."
        )


def _cut(federation: Federation) -> Iterator[str]:
    """Say how many labels a share loses by being cut down to whole samples on every client."""
    wanted, there = wanted_labels(federation), int(federation.labeled.sizes.sum())
    if 2 * there < wanted:
        fraction = federation.settings["labels"]["fraction"]
        yield (
            f"labels.fraction={fraction:g} would be {wanted:,} labels in all; cut down to whole "
            f"samples on every client it is {there:,}. labels.total={wanted} is exact."
        )


def wanted_labels(federation: Federation) -> int:
    """Return how many labels a share of every client's samples would be, were it not cut down.

    Returns
    -------
    int
        0 where labels are not dealt as a share of all clients' samples.
    """
    policy = federation.settings.get("labels", {})
    fraction = policy.get("fraction")
    if policy.get("name") not in ("uniform", "stratified") or not fraction:
        return 0
    if policy.get("zero_label_share") or policy.get("clients"):
        return 0
    known = int((federation.labels[federation.held.index] >= 0).sum())
    return int(fraction * known + 0.5)


def _own_tests(federation: Federation) -> Iterator[str]:
    asked = federation.settings.get("layers", {}).get("test_shards", {}).get("share")
    sizes = federation.test.sizes
    if not asked and not sizes.any():
        return
    empty, few = int((sizes == 0).sum()), int(((sizes > 0) & (sizes < TINY)).sum())
    if empty:
        yield (
            f"Clients without a test sample of their own: {empty} of {len(sizes)}; the accuracies "
            f"of clients are over {len(sizes) - empty}."
        )
    if few:
        yield (
            f"Clients with fewer than {TINY} test samples of their own: {few} of {len(sizes)}; "
            "their accuracies are coarse, so are the worst and the tenth percentile."
        )


def _drawn(federation: Federation, train: Samples) -> Iterator[str]:
    """Say which people take part, where there are more than clients."""
    people = len(train.owner_names)
    natural = federation.settings.get("partition", {}).get("name") == "natural"
    if natural and federation.names and len(federation) < people:
        yield (
            f"{len(federation)} of {people} natural clients take part, drawn by the seed: "
            f"{_listed(federation.names)}."
        )


def _strangers(federation: Federation, train: Samples, test: Samples) -> Iterator[str]:
    """Say whose test samples no client can have, where they are dealt by person."""
    asked = federation.settings.get("layers", {}).get("test_shards", {})
    if not asked.get("share") or asked.get("by") != "owner" or test.owner is None:
        return
    known = set(train.owner_names)
    strange = [k for k, name in enumerate(test.owner_names) if name not in known]
    if strange:
        names = [test.owner_names[k] for k in strange]
        yield (
            f"People with test samples who have no training samples: {_listed(names)}; no client is"
            f" tested on these {int(np.isin(test.owner, strange).sum()):,} of {len(test):,} test"
            " samples."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (" ..." if len(names) > LISTED else "")


def _classes(held: Indices) -> Iterator[str]:
    holders = (held > 0).sum(axis=0)
    if len(held) > 1:
        single = int((holders == 1).sum())
        if single:
            yield f"Classes that only one client holds: {single}; sampling rarely reaches it."
    missing = int((holders == 0).sum())
    if missing:
        yield f"Classes that no client holds: {missing}."


def _bias(federation: Federation, held: Indices) -> Iterator[str]:
    partition = federation.settings.get("partition", {})
    if not partition.get("balance") or partition.get("class_order") != "natural":
        return
    trend = late_class_trend(held)
    if trend < BIASED:
        holders = (held > 0).sum(axis=0)
        yield (
            "Balanced Dirichlet in natural class order gathers late classes on few clients: class "
            f"0 lies with {holders[0]} clients, class {len(holders) - 1} with {holders[-1]} "
            f"(correlation {trend:.2f}). Results per class are confounded with the class number; "
            "partition.class_order=permuted avoids that."
        )


def late_class_trend(held: Indices) -> float:
    """Correlate the number of a class with the number of clients that hold it.

    Parameters
    ----------
    held : ndarray of int64, shape (K, C)
        Samples by client and class.

    Returns
    -------
    float
        In [-1, 1]; 0 where all classes have the same number of holders.
    """
    holders: NDArray[np.float64] = (held > 0).sum(axis=0).astype(np.float64)
    if holders.std() == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(holders)), holders)[0, 1])
