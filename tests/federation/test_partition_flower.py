import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from fedlabels.errors import ConfigError
from fedlabels.federation import PARTITIONS, Federation, Samples, build, make, suspicions
from fedlabels.federation.summary import class_counts
from tests.federation.cases import even_labels, policy_of, with_origins


def deal(target, options, samples, *, clients=4, seed=0, **fields):
    partition = make(PARTITIONS, "flower", {"target": target, "options": options, **fields})
    return partition.deal(samples, clients=clients, seed=seed)


class FakeTable(dict):
    """A table of columns, as far as the partitioner below needs it."""

    from_dict = classmethod(lambda cls, columns: cls(columns))


class RowsPartitioner:
    """Deal the rows like cards, from a start that the seed says."""

    def __init__(self, num_partitions, partition_by="", seed=0, give_all=False, fail=False):
        self.num_partitions, self.by, self.seed = num_partitions, partition_by, seed
        self.give_all, self.fail = give_all, fail

    def load_partition(self, number):
        if self.fail:
            raise RuntimeError("no luck after 10 tries")
        index = np.asarray(self.dataset["index"])
        if self.give_all:
            return {"index": index.tolist()}
        return {"index": index[(index + self.seed) % self.num_partitions == number].tolist()}


class FixedPartitioner(RowsPartitioner):
    """Takes neither a number of partitions nor a seed."""

    def __init__(self, sizes):
        super().__init__(len(sizes))


class FewPartitioner(RowsPartitioner):
    """Deals samples of known class only."""

    def load_partition(self, number):
        index, label = (np.asarray(self.dataset[name]) for name in ("index", "label"))
        known = label < label.max()
        return {"index": index[known & (index // 2 % self.num_partitions == number)]}


@pytest.fixture
def fake(monkeypatch):
    """Put a library of the same shape in the place of flwr-datasets."""
    partitioner, datasets = ModuleType("flwr_datasets.partitioner"), ModuleType("datasets")
    partitioner.RowsPartitioner = RowsPartitioner
    partitioner.FixedPartitioner = FixedPartitioner
    partitioner.FewPartitioner = FewPartitioner
    partitioner.helper = len
    datasets.Dataset = FakeTable
    monkeypatch.setitem(sys.modules, "flwr_datasets", ModuleType("flwr_datasets"))
    monkeypatch.setitem(sys.modules, "flwr_datasets.partitioner", partitioner)
    monkeypatch.setitem(sys.modules, "datasets", datasets)


@pytest.mark.usefixtures("fake")
class TestAdapter:
    def test_shards_are_those_of_the_partitioner(self):
        shards = deal("RowsPartitioner", {"seed": 0}, Samples(even_labels(10), 10))
        assert [s.tolist() for s in shards] == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]

    def test_the_runs_seed_is_filled_in(self):
        samples = Samples(even_labels(12), 10)
        first = {s: deal("RowsPartitioner", {}, samples, seed=s).index.tolist() for s in range(9)}
        assert first[0] == deal("RowsPartitioner", {}, samples, seed=0).index.tolist()
        assert len({tuple(f) for f in first.values()}) > 1

    def test_only_what_the_constructor_takes_is_filled_in(self):
        shards = deal(
            "FixedPartitioner", {"sizes": [1, 2, 3]}, Samples(even_labels(9), 10), clients=3
        )
        assert shards.sizes.tolist() == [3, 3, 3]

    def test_the_table_has_labels_and_origins_and_nothing_else(self, monkeypatch):
        seen = {}
        monkeypatch.setattr(FakeTable, "from_dict", lambda c: seen.update(c) or FakeTable(c))
        samples = with_origins(even_labels(12), 10)
        deal("RowsPartitioner", {}, samples)
        assert seen.keys() == {"label", "index", "domain", "owner"}
        seen.clear()
        deal("RowsPartitioner", {}, Samples(even_labels(12), 10))
        assert seen.keys() == {"label", "index"}

    def test_the_table_is_shuffled_by_the_runs_seed(self, monkeypatch):
        seen = []
        monkeypatch.setattr(FakeTable, "from_dict", lambda c: seen.append(c) or FakeTable(c))
        samples = with_origins(even_labels(60), 10)
        for seed in (0, 0, 1):
            deal("RowsPartitioner", {}, samples, seed=seed)
        orders = [table["index"].tolist() for table in seen]
        assert orders[0] == orders[1] != orders[2]
        assert sorted(orders[0]) == list(range(60)) != orders[0]
        order = seen[0]["index"]
        assert seen[0]["label"].tolist() == samples.labels[order].tolist()
        assert seen[0]["owner"].tolist() == samples.owner[order].tolist()

    def test_labels_are_numbered_without_gaps_and_the_unknown_come_last(self, monkeypatch):
        seen = {}
        monkeypatch.setattr(FakeTable, "from_dict", lambda c: seen.update(c) or FakeTable(c))
        labels = np.array([7, -1, 2, 7, -1, 4, 2, 4])
        deal("RowsPartitioner", {}, Samples(labels, 10))
        code = {2: 0, 4: 1, 7: 2, -1: 3}
        assert seen["label"].tolist() == [code[k] for k in labels[seen["index"]].tolist()]

    def test_what_nobody_gets_is_a_suspicion(self):
        labels = np.where(np.arange(40) % 2, -1, np.arange(40) % 10)
        policy = policy_of("uniform", {"fraction": 1.0})
        made = {
            target: build(
                Samples(labels, 10), clients=4, seed=0, policy=policy,
                partition=make(PARTITIONS, "flower", {"target": target}),
            )
            for target in ("FewPartitioner", "RowsPartitioner")
        }  # fmt: skip
        notes = [n for n in suspicions(made["FewPartitioner"]) if "to nobody" in n]
        assert notes == [
            "FewPartitioner and what lies over it leave 20 of 40 samples to nobody, 20 of them of "
            "unknown class."
        ]
        assert not [n for n in suspicions(made["RowsPartitioner"]) if "to nobody" in n]

    def test_small_clients_are_repaired(self):
        shards = deal("RowsPartitioner", {}, Samples(even_labels(10), 10), min_size=2)
        assert shards.sizes.min() >= 2

    def test_the_options_are_kept_with_the_federation(self, tmp_path):
        partition = make(
            PARTITIONS, "flower", {"target": "FixedPartitioner", "options": {"sizes": (1, 2)}}
        )
        federation = build(
            Samples(even_labels(10), 10),
            clients=2,
            partition=partition,
            policy=policy_of("uniform", {"fraction": 0.5}),
            seed=0,
        )
        federation.save(tmp_path / "f.npz")
        assert Federation.load(tmp_path / "f.npz").settings == federation.settings

    @pytest.mark.parametrize(
        ("target", "options", "message"),
        [
            (
                "Rows",
                {},
                "no partitioner 'Rows'; it has FewPartitioner, FixedPartitioner, RowsPartitioner$",
            ),
            ("helper", {}, "no partitioner 'helper'"),
            ("RowsPartitioner", {"alpha": 1}, r"alpha=1\) of flwr-datasets: TypeError: .*'alpha'"),
            ("RowsPartitioner", {"fail": True}, "RuntimeError: no luck after 10 tries"),
            ("RowsPartitioner", {"give_all": True}, "gives a sample to several clients"),
            (
                "RowsPartitioner",
                {"num_partitions": 3},
                "makes 3 partitions for 4 clients; set clie",
            ),
            (
                "RowsPartitioner",
                {"num_partitions": 5},
                "makes 5 partitions for 4 clients; set clie",
            ),
            ("RowsPartitioner", {"seed": object()}, "options must be numbers, texts, lists"),
            ("RowsPartitioner", ["seed"], r"options must be names and values, got \['seed'\]"),
        ],
    )
    def test_mistakes(self, target, options, message):
        with pytest.raises(ConfigError, match=message):
            deal(target, options, Samples(even_labels(10), 10))


@pytest.mark.parametrize("absent", ["datasets", "flwr_datasets.partitioner"])
def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch, fake, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConfigError, match=r"partition=flower needs .* pip install .flwr-datasets"):
        deal("RowsPartitioner", {}, Samples(even_labels(10), 10))


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = (
        "import sys, fedlabels.federation as f\n"
        "f.make(f.PARTITIONS, 'flower', {'target': 'IidPartitioner'})\n"
        "sys.exit(any(name in sys.modules for name in ('flwr_datasets', 'datasets', 'pyarrow')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestRealLibrary:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("flwr_datasets")

    def test_two_classes_each(self):
        labels = even_labels(600)
        options = {"num_classes_per_partition": 2}
        shards = deal("PathologicalPartitioner", options, Samples(labels, 10), clients=20)
        counts = class_counts(shards.owners, labels[shards.index], 20, 10)
        assert ((counts > 0).sum(1) == 2).all()
        assert sorted(shards.index.tolist()) == list(range(600))

    def test_same_seed_same_shards(self):
        samples = Samples(even_labels(600), 10)
        first, again, other = (
            deal("DirichletPartitioner", {"alpha": 5.0}, samples, seed=s).index for s in (0, 0, 1)
        )
        assert first.tolist() == again.tolist() != other.tolist()

    def test_it_cuts_a_table_as_it_lies_so_ours_is_shuffled(self):
        """flwr-datasets 0.6.1, partitioner/size_partitioner.py: contiguous blocks, no seed."""
        labels = np.sort(even_labels(600))
        found = {s: deal("IidPartitioner", {}, Samples(labels, 10), seed=s) for s in (0, 1)}
        assert found[0].index.tolist() != found[1].index.tolist()
        for shards in found.values():
            counts = class_counts(shards.owners, labels[shards.index], 4, 10)
            assert (counts > 0).all()
            assert sorted(shards.index.tolist()) == list(range(600))

    @pytest.mark.filterwarnings("ignore")
    def test_it_deals_labels_from_zero_on_so_the_unknown_get_a_number(self):
        """flwr-datasets 0.6.1, partitioner/inner_dirichlet_partitioner.py: classes 0..n-1."""
        labels = np.where(np.arange(1000) % 2, -1, np.arange(1000) // 2 % 10)
        options = {"partition_sizes": [100] * 10, "alpha": 5.0}
        shards = deal("InnerDirichletPartitioner", options, Samples(labels, 10), clients=10)
        assert sorted(shards.index.tolist()) == list(range(1000))
        assert shards.sizes.tolist() == [100] * 10

    def test_natural_clients(self):
        samples = with_origins(even_labels(100), 10, owners=4)
        shards = deal("NaturalIdPartitioner", {"partition_by": "owner"}, samples)
        assert [len(set(samples.owner[s].tolist())) for s in shards] == [1] * 4

    @pytest.mark.parametrize(
        ("target", "options", "message"),
        [
            ("DirichletPartitioner", {"alpha": 0.01}, "max number of attempts"),
            ("VerticalEvenPartitioner", {}, "index"),
            ("SizePartitioner", {"partition_sizes": [5, 5]}, "makes 2 partitions for 10 clients"),
        ],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_its_errors_are_ours(self, target, options, message):
        with pytest.raises(ConfigError, match=message):
            deal(target, options, Samples(even_labels(100), 10), clients=10)
