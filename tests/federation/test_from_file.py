"""Partitions and labels that stand in files."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from fedlabels.deploy.device_data import check_files
from fedlabels.errors import ConfigError, DataError
from fedlabels.federation import Federation, Layers, LongTail, Samples, build
from fedlabels.federation.index_files import content_sha256
from tests.federation.cases import partition_of, policy_of

LABELS = np.arange(12) % 3
LISTS = {"0": [0, 4, 8], "1": [1, 2, 3, 5]}
NAMED = {"north": [4, 0, 8], "south": [1, 2, 3, 5]}


def made(path, file, *, clients=2, labels=None, seed=0, layers=None, reuse=False, **fields):
    """Build a federation with a partition that stands in a file below a folder."""
    policy = policy_of("uniform", {"fraction": 1.0}) if labels is None else labels
    return build(
        Samples(LABELS, 3),
        clients=clients,
        partition=partition_of("from_file", {"file": str(path / file), **fields}),
        policy=policy,
        seed=seed,
        layers=layers,
        reuse=reuse,
    )


def held(federation):
    return [part.tolist() for part in federation.held]


def labels_of(path, file):
    return policy_of("from_file", {"file": str(path / file)})


def torch_saved(path, value):
    """Write what torch.save writes for a value without tensors."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))


def write(path, name):
    """Write the two clients of LISTS in a format, and return the file's name."""
    arrays = {k: np.array(v) for k, v in LISTS.items()}
    owner = np.array([0, 1, 1, 1, 0, 1, -1, -1, 0, -1, -1, -1])
    file = path / name
    if name == "dict.json":
        file.write_text(json.dumps(LISTS))
    elif name == "lists.json":
        file.write_text(json.dumps(list(LISTS.values())))
    elif name == "owner.json":
        file.write_text(json.dumps(owner.tolist()))
    elif name == "clients.npz":
        np.savez(file, **{f"client_{k}": v for k, v in arrays.items()})
    elif name == "offsets.npz":
        np.savez(file, indices=np.concatenate(list(arrays.values())), offsets=[0, 3, 7])
    elif name == "owner.npz":
        np.savez(file, owner=owner)
    elif name == "owner.npy":
        np.save(file, owner)
    elif name == "dict.npy":
        np.save(file, np.array({int(k): v for k, v in arrays.items()}, dtype=object))
    elif name == "map.txt":
        file.write_text("{\n0: [\n0, 4, 8\n]\n1: [\n1, 2, \n3, 5\n]\n}\n")
    elif name == "strategy.pth":
        torch_saved(file, {"data_partition": {1: arrays["1"], 0: LISTS["0"]}, "train_list": ["a"]})
    elif name == "dict.pkl":
        file.write_bytes(pickle.dumps({int(k): v for k, v in arrays.items()}))
    else:
        file.mkdir()
        for k, v in LISTS.items():
            (file / f"client_{k}.csv").write_text("index,name\n" + "".join(f"{i},x\n" for i in v))
        (file / "test.csv").write_text("9\n")
    return name


FORMATS = [
    "dict.json", "lists.json", "owner.json", "clients.npz", "offsets.npz", "owner.npz", "owner.npy",
    "dict.npy", "map.txt", "strategy.pth", "dict.pkl", "split_1",
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_federation(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    dealt = made(tmp_path, write(tmp_path, name))
    assert held(dealt) == list(LISTS.values())
    assert dealt.hash == made(tmp_path, "a.json", seed=5).hash
    assert dealt.names == ()


def test_names_of_clients_are_kept_in_the_order_of_the_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(NAMED))
    dealt = made(tmp_path, "a.json")
    assert dealt.names == ("north", "south")
    assert held(dealt) == [[0, 4, 8], [1, 2, 3, 5]]
    dealt.save(tmp_path / "federation.npz")
    again = Federation.load(tmp_path / "federation.npz")
    assert again.names == dealt.names
    assert again.hash == dealt.hash


def test_clients_that_are_numbered_otherwise_are_sorted_by_number_and_keep_it(tmp_path):
    for k, rows in ((10, [1]), (9, [0]), (8, [2])):
        (tmp_path / f"client_{k}.csv").write_text("".join(f"{i}\n" for i in rows))
    dealt = made(tmp_path, "", clients=3)
    assert held(dealt) == [[2], [0], [1]]
    assert dealt.names == ("client_8", "client_9", "client_10")


def test_a_runs_federation_is_dealt_again(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(NAMED))
    first = made(tmp_path, "a.json", labels=policy_of("uniform", {"fraction": 0.5}))
    (tmp_path / "run").mkdir()
    first.save(tmp_path / "run" / "federation.npz")
    for file in ("run", "run/federation.npz"):
        again = made(tmp_path, file, labels=labels_of(tmp_path, file), seed=9)
        assert again.hash == first.hash
        assert again.names == first.names


def test_unlabeled_samples_of_a_run_are_those_of_the_run(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    half = policy_of("uniform", {"fraction": 0.3, "unlabeled_fraction": 0.5})
    first = made(tmp_path, "a.json", labels=half)
    assert len(first.held.index) < 7  # some samples are in neither part
    first.save(tmp_path / "f.npz")
    again = made(tmp_path, "a.json", labels=labels_of(tmp_path, "f.npz"))
    assert again.hash == first.hash


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flat.json", [4, 5]),
        ("clients.json", {"0": [4], "1": [5]}),
        ("mask.npy", np.isin(np.arange(12), (4, 5, 9))),
        ("labeled.npz", {"labeled": np.isin(np.arange(12), (4, 5, 9)).astype(int)}),
        ("flat.csv", "index\n4\n5\n"),
    ],
)
def test_labels_of_every_format(tmp_path, name, value):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    file = tmp_path / name
    if name.endswith(".json"):
        file.write_text(json.dumps(value))
    elif name.endswith(".npy"):
        np.save(file, value)
    elif name.endswith(".npz"):
        np.savez(file, **value)
    else:
        file.write_text(value)
    dealt = made(tmp_path, "a.json", labels=labels_of(tmp_path, name))
    assert [part.tolist() for part in dealt.labeled] == [[4], [5]]
    assert [part.tolist() for part in dealt.unlabeled] == [[0, 8], [1, 2, 3]]


def test_shared_samples_are_refused_unless_asked_for(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [0, 1], "b": [1, 2]}))
    with pytest.raises(DataError, match=r"clients 'a' and 'b' both name sample 1; .*shared=true"):
        made(tmp_path, "a.json")
    assert held(made(tmp_path, "a.json", shared=True)) == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": [0], "1": [12]}', "client 1 names sample 12, but the training set has 12, 0 to 11"),
        ('{"0": [0], "1": [-1]}', "client 1 names sample -1; samples are numbered from 0"),
        ('{"0": [0], "1": [3, 3]}', "client 1 names sample 3 twice"),
        ('{"0": [0], "0": [1]}', "client '0' stands in it twice"),
        ('{"0": [0], "1": [0.5]}', "client 1 is to have a flat list of whole numbers"),
        ('{"0": [0], "1": [[1], [2, 3]]}', "client 1 has no flat list"),
        ('{"0": [0], "1": ["a"]}', "client 1 is to have a flat list of whole numbers"),
        ("{}", "names no client"),
        ("[0, 1]", r"of shape \(12,\); got int64 of shape \(2,\)"),
        ("3", "holds a int, not lists"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=rf"partition.file=.*a\.json.*{message}"):
        made(tmp_path, "a.json")


def test_other_mistakes_are_said(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    with pytest.raises(ConfigError, match=r"clients=3, but .* has 2 clients; set clients=2"):
        made(tmp_path, "a.json", clients=3)
    with pytest.raises(ConfigError, match=r"client 0 of .* has 3 samples, fewer than .*min_size=4"):
        made(tmp_path, "a.json", min_size=4)
    with pytest.raises(ConfigError, match=r"partition.reuse=true .* says who holds what"):
        made(tmp_path, "a.json", reuse=True)
    with pytest.raises(DataError, match=r"does not exist; give .json"):
        made(tmp_path, "b.json")
    (tmp_path / "b.xls").write_text("")
    with pytest.raises(DataError, match=r"is none of .json"):
        made(tmp_path, "b.xls")
    (tmp_path / "map.txt").write_text("0: [1]\nhello")
    with pytest.raises(DataError, match="is no map of FedML: 'hello'"):
        made(tmp_path, "map.txt")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"asks for os.system"):
        made(tmp_path, "evil.pkl")
    folder = tmp_path / "5_clients" / "split_1"
    folder.mkdir(parents=True)
    (folder / "client_1.csv").write_text("a.npy\nb.npy\n")
    with pytest.raises(DataError, match="give the folder that holds them: 5_clients/split_1"):
        made(tmp_path, "")
    with pytest.raises(DataError, match=r"client_1.csv, entry 2: 'b.npy' is no index"):
        made(folder, "", clients=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 6], "names 1 samples that no client holds, the first is 6"),
        ({"0": [1], "1": [2]}, "client 0 has a label of sample 1, which it does not hold"),
        ({"0": [0]}, "clients=2, but .* has 1 clients"),
        ([0, 99], "names sample 99, but the training set has 12"),
        ([0.5], "is to hold indices of the labeled samples"),
    ],
)
def test_labels_that_do_not_fit_are_said(tmp_path, value, message):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    (tmp_path / "l.json").write_text(json.dumps(value))
    with pytest.raises((DataError, ConfigError), match=message):
        made(tmp_path, "a.json", labels=labels_of(tmp_path, "l.json"))


def test_a_federation_of_other_data_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(LISTS))
    made(tmp_path, "a.json").save(tmp_path / "f.npz")
    with pytest.raises(DataError, match="is of another training set"):
        build(
            Samples(LABELS[::-1].copy(), 3),
            clients=2,
            partition=partition_of("from_file", {"file": str(tmp_path / "f.npz")}),
            policy=policy_of("uniform", {"fraction": 0.5}),
            seed=0,
        )


def test_a_long_tail_takes_samples_from_the_lists(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([[*range(0, 12, 2)], [*range(1, 12, 2)]]))
    dealt = made(tmp_path, "a.json", layers=Layers(long_tail=LongTail(factor=0.25)))
    assert np.bincount(LABELS[dealt.held.index]).tolist() == [4, 2, 1]
    assert all((part % 2 == k).all() for k, part in enumerate(dealt.held))


def test_content_counts_and_not_the_place(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        write(tmp_path / place, "dict.json")
        write(tmp_path / place, "split_1")
    assert content_sha256(tmp_path / "one/dict.json") == content_sha256(tmp_path / "two/dict.json")
    folders = [tmp_path / place / "split_1" for place in ("one", "two")]
    assert content_sha256(folders[0]) == content_sha256(folders[1])
    (folders[1] / "client_0.csv").write_text("0\n")
    assert content_sha256(folders[0]) != content_sha256(folders[1])


@pytest.mark.parametrize("group", ["partition", "labels"])
def test_devices_read_no_file_that_a_server_names(group):
    settings = {"partition": {"name": "iid"}, "labels": {"name": "uniform"}}
    check_files(settings)
    settings[group] = {"name": "from_file", "file": "/etc/passwd"}
    with pytest.raises(ConfigError, match=f"{group}=from_file deals by a file"):
        check_files(settings)
