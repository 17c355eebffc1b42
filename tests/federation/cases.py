"""Every partitioner and label policy with settings, and training sets to deal."""

import numpy as np

from fedlabels.federation import PARTITIONS, POLICIES, Ragged, Samples, make

DOMAINS = ("art", "photo", "sketch")
CLASSES = 5  # of the shards that policies are tried on

PARTITION_CASES = [
    ("iid", {}),
    ("dirichlet", {"alpha": 0.1}),
    ("dirichlet", {"alpha": 0.5, "balance": True}),
    ("dirichlet", {"alpha": 0.5, "balance": True, "class_order": "natural"}),
    ("dirichlet", {"alpha": 0.3, "draw": "client"}),
    ("client_dirichlet", {"alpha": 0.1}),
    ("client_dirichlet", {"alpha": 0.5, "sigma": 0.8}),
    ("shards", {"shards_per_client": 2}),
    ("classes_per_client", {"number": 2}),
    ("extended_dirichlet", {"number": 2, "alpha": 0.3}),
    ("log_normal", {"sigma": 1.0}),
    ("quantity_dirichlet", {"alpha": 0.5}),
    ("fedloge", {"alpha": 0.5}),
    ("natural", {}),
    ("domain", {}),
    ("domain", {"within": "dirichlet", "alpha": 0.3}),
    ("domain", {"within": "lds", "alpha": 1.0, "min_size": 0}),
    ("domain", {"equal_sizes": True, "holdout": ["photo"]}),
]

POLICY_CASES = [
    ("uniform", {"fraction": 0.3}),
    ("stratified", {"fraction": 0.3}),
    ("class_mismatch", {"fraction": 0.3, "kept": 0.5}),
    ("dirichlet_labels", {"fraction": 0.3, "alpha": 0.3}),
    ("per_class_count", {"count": 2}),
    ("beta", {"fraction": 0.3}),
    ("zero_label_clients", {"fraction": 0.3, "share": 0.4}),
    ("fully_labeled_clients", {"fraction": 0.1, "share": 0.3}),
    ("server", {"fraction": 0.2, "per_class": 3}),
]


def case_id(value):
    return value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())


def partition_of(name, fields):
    return make(PARTITIONS, name, fields)


def policy_of(name, fields):
    return make(POLICIES, name, fields)


def even_labels(samples=60_000, classes=10):
    return np.random.default_rng(0).permutation(np.arange(samples) % classes)


def with_origins(labels, classes, *, owners=20, domains=DOMAINS, seed=0):
    """Give samples origins: each of the owners and domains has about as many as the others."""
    random = np.random.default_rng(seed)
    return Samples(
        labels,
        classes,
        random.permutation(np.arange(len(labels)) % len(domains)),
        domains,
        random.permutation(np.arange(len(labels)) % owners),
        tuple(f"person {k}" for k in range(owners)),
    )


def skewed(seed=0, clients=20, low=30, high=90):
    """Make shards of different sizes whose clients hold two to five classes."""
    random = np.random.default_rng(seed)
    sizes = random.integers(low, high, clients)
    mixes = random.dirichlet(np.full(CLASSES, 0.5), size=clients)
    labels = np.concatenate(
        [random.choice(CLASSES, size=n, p=mix) for n, mix in zip(sizes, mixes, strict=True)]
    )
    index = random.permutation(len(labels))
    truth = np.empty(len(labels), dtype=np.int64)
    truth[index] = labels
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Ragged(index, offsets), Samples(truth, CLASSES)


def masks_of(name, fields, shards, samples, seed=0):
    return policy_of(name, fields).masks(shards, samples, random=np.random.default_rng(seed))


def per_client(shards, mask):
    return shards.keep(mask).sizes


def class_table(shards, samples, mask=None):
    kept = shards if mask is None else shards.keep(mask)
    table = np.zeros((len(shards), CLASSES), dtype=np.int64)
    np.add.at(table, (kept.owners, samples.labels[kept.index]), 1)
    return table
