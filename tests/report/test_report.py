"""The report says what the run folder holds, in one safe file."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlabels.errors import DataError
from fedlabels.federation import Federation, Ragged
from fedlabels.report import read_run, write_report
from fedlabels.report.__main__ import main
from fedlabels.report.holdings import read_holdings
from fedlabels.report.single.clients import spread
from fedlabels.report.single.provenance import hide

MakeRun = Callable[..., Path]


class Checker(HTMLParser):
    """Collects tags and texts, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def check(folder: Path) -> tuple[str, Checker]:
    text = write_report(folder).read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return text, checker


def sections(checker: Checker) -> list[str | None]:
    return [attributes["id"] for tag, attributes in checker.tags if tag == "section"]


def test_a_whole_run_has_every_section(make_run: MakeRun) -> None:
    _, page = check(make_run(losses=True))
    assert sections(page) == [
        "learning",
        "pseudo-labels",
        "classes",
        "clients",
        "data",
        "participation",
        "cost",
        "metrics",
        "reproduce",
        "settings",
    ]


def test_the_headline_numbers_are_those_of_the_run(make_run: MakeRun) -> None:
    folder = make_run()
    run = read_run(folder)
    accuracy = run.rounds.get("test_accuracy")
    words = " ".join(check(folder)[1].texts).replace("\N{NO-BREAK SPACE}", " ")
    assert run.holdings is not None
    assert f"{100 * accuracy[-1]:.1f} %" in words
    assert f"{100 * np.nanmax(accuracy):.1f} % in round 20" in words
    assert f"{run.holdings.labels.sum()} (1.7 %)" in words
    assert "31 min 12 s" in words
    assert "12 clients" in words
    assert "python run_sim.py method=fedlabel 'name=digits at 2 % labels' seed=3" in words
    assert "3f" * 32 in words


def test_every_setting_is_listed(make_run: MakeRun) -> None:
    text, _ = check(make_run())
    assert "Show all 26 settings" in text
    for key, value in (("alpha", "0.3"), ("options.download", "false"), ("root", "null")):
        assert f'<th scope="row">{key}</th><td><code>{value}</code></td>' in text


def test_a_password_in_an_address_is_hidden(make_run: MakeRun) -> None:
    text, _ = check(make_run(manifest={"command": "run tracker=http://me:secret-word@host"}))
    assert "secret-word" not in text
    assert "postgresql://reader:***@host/runs" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:p@ss@host/x", "https://user:***@host/x"),
        ("postgresql://user:se/cret@host/db", "postgresql://user:***@host/db"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("https://host/x?token=abc&a=1", "https://host/x?token=***&a=1"),
        ("https://host?password=abc", "https://host?password=***"),
        ("s3://b/x?X-Amz-Signature=abc&v=1", "s3://b/x?X-Amz-Signature=***&v=1"),
        ("tracker.api_key=abc seed=1", "tracker.api_key=*** seed=1"),
        ("WANDB_API_KEY=abc python", "WANDB_API_KEY=*** python"),
        ("+dataset.options={token: abc}", "+dataset.options={token: ***}"),
        ("{Authorization: Bearer abc123}", "{Authorization: Bearer ***}"),
        ('{"Authorization": "Basic abc=", "a": 1}', '{"Authorization": "Basic ***", "a": 1}'),
        ("--password hunter2 --seed 3", "--password *** --seed 3"),
        ("--auth-token 'a b' seed=1", "--auth-token *** seed=1"),
        ("'tracker.password=a b' seed=1", "'tracker.password=***' seed=1"),
        ("{'password': 'a b', 'seed': 1}", "{'password': ***, 'seed': 1}"),
        ("https://host/x;jsessionid=abc", "https://host/x;jsessionid=***"),
        ("Cookie: abc", "Cookie: ***"),
        ("--enable-auth --seed 3", "--enable-auth --seed 3"),
        ("model.max_tokens=5 author=me", "model.max_tokens=5 author=me"),
        ("https://host:8080/x seed=1", "https://host:8080/x seed=1"),
        ("https://host/icon@2x.png", "https://host/icon@2x.png"),
        ("python run_sim.py 'name=a: b' seed=3", "python run_sim.py 'name=a: b' seed=3"),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(text: str, shown: str) -> None:
    assert hide(text) == shown


def test_markup_in_any_value_is_escaped(make_run: MakeRun) -> None:
    bad = "<script>alert(1)</script>"
    config = f'name: "{bad}"\n"{bad}": {{"{bad}": "{bad}"}}\n'
    names = [f"{bad}\"'{i}" for i in range(10)]
    values = dict.fromkeys(("name", "method", "command", "hardware", "status", "seed", bad), bad)
    folder = make_run(config=config, losses=True, manifest=values | {"class_names": names})
    with (folder / "clients.csv").open("a") as file:
        columns = (folder / "clients.csv").read_text().split("\n", 1)[0].split(",")
        cells = {"round": "20", "client_id": bad, "status": bad, "error": bad}
        file.write(",".join(cells.get(name, "") for name in columns) + "\n")
    text, page = check(folder)
    scripts = [a for tag, a in page.tags if tag == "script" and a.get("type") is None]
    assert len(scripts) == 2  # the library and the page's own
    assert bad not in text
    assert bad in "".join(page.texts)


def test_the_page_loads_nothing(make_run: MakeRun) -> None:
    text, page = check(make_run())
    assert not [a for _, a in page.tags if {"src", "srcset", "data"} & set(a)]
    assert all((a["href"] or "").startswith("#") for _, a in page.tags if "href" in a)
    own = re.sub(r"/\*! Apache ECharts.*?</script>", "", text, flags=re.DOTALL)
    assert "@import" not in own
    assert "url(" not in own
    assert "default-src &#x27;none&#x27;" in text


def test_links_lead_somewhere(make_run: MakeRun) -> None:
    _, page = check(make_run())
    links = [(a["href"] or "")[1:] for tag, a in page.tags if tag == "a"]
    assert links == sections(page)


def charts(text: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    return [json.loads(data, parse_constant=pytest.fail) for data in found]


def test_charts_hold_the_numbers_of_the_run(make_run: MakeRun) -> None:
    folder = make_run(losses=True, clients=70)
    found = charts(check(folder)[0])
    run = read_run(folder)
    kinds = [chart["kind"] for chart in found]
    assert {"lines", "bars", "heatmap", "squares"} == set(kinds)
    (accuracy,) = (
        c["lines"] for c in found[1:] if c["says"].startswith("share (%) over round: test")
    )
    assert accuracy[0]["x"] == [5, 10, 15, 20]
    known = run.rounds.get("test_accuracy")[4::5]
    assert accuracy[0]["y"] == pytest.approx(100 * known, rel=1e-4)
    squares = next(c for c in found if c["kind"] == "squares")
    assert len(squares["clients"]) == 60
    assert run.holdings is not None
    assert squares["total"][0] == run.holdings.total[0].tolist()
    history = next(c for c in found if c["kind"] == "heatmap")
    assert history["x"]["names"] == ["5", "10", "15", "20"]
    assert history["values"][3][1] == pytest.approx(100 * run.recall.get("recall_3")[1], rel=1e-4)


def test_who_is_left_behind_is_told_by_the_class_mix(make_run: MakeRun) -> None:
    folder = make_run(clients=7)
    run = read_run(folder)
    assert run.holdings is not None
    recall = np.array([run.recall.get(f"recall_{c}")[-1] for c in range(10)])
    mixes = run.holdings.total / run.holdings.total.sum(axis=1, keepdims=True)
    found = spread(run)
    assert found is not None
    assert found.clients.tolist() == list(range(7))
    assert found.accuracy == pytest.approx(mixes @ recall)
    words = " ".join(check(folder)[1].texts)
    assert "with the client's class mix" in words


def test_what_was_measured_on_clients_goes_before_what_can_be_expected(make_run: MakeRun) -> None:
    folder = make_run(clients=4)
    lines = ["round,client_id,domain,accuracy", "5,0,,0.1", "10,3,,0.5", "10,1,,0.25", "10,2,,"]
    (folder / "personal.csv").write_text("\n".join(lines) + "\n")
    found = spread(read_run(folder))
    assert found is not None
    assert found.clients.tolist() == [3, 1]
    assert found.accuracy.tolist() == [0.5, 0.25]
    text, _ = check(folder)
    assert "Measured on test samples of each client" in text


def test_a_run_without_pseudo_labels(make_run: MakeRun) -> None:
    _, page = check(make_run(pseudo=False))
    assert "pseudo-labels" not in sections(page)
    assert "metrics" not in sections(page)


@pytest.mark.parametrize("every", [0, 1])
def test_one_round(make_run: MakeRun, every: int) -> None:
    text, page = check(make_run(rounds=1, every=every))
    assert ("classes" in sections(page)) == bool(every)
    assert ("none evaluated" in text) == (not every)


def test_zero_evaluated_rounds(make_run: MakeRun) -> None:
    text, page = check(make_run(every=0))
    assert "The model was not evaluated." in text
    assert "learning" in sections(page)


@pytest.mark.parametrize(
    "missing", ["config.yaml", "manifest.json", "rounds.csv", "clients.csv", "federation.npz"]
)
def test_a_missing_file_leaves_a_part_out(make_run: MakeRun, missing: str) -> None:
    folder = make_run()
    (folder / missing).unlink()
    check(folder)


def test_a_run_that_has_just_begun(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("rounds.csv", "clients.csv", "test_class.csv", "federation.npz"):
        (folder / name).unlink()
    text, page = check(folder)
    assert "Nothing was measured yet." in text
    assert sections(page) == ["learning", "reproduce", "settings"]


def test_a_torn_line_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "rounds.csv").open("a") as file:
        file.write("21,10")
    assert len(read_run(folder).rounds) == 20
    check(folder)


def test_failures_are_told_with_their_errors(make_run: MakeRun, tmp_path: Path) -> None:
    text, page = check(make_run(rounds=40, losses=True))
    assert "RuntimeError: <b>out of memory</b>" in "".join(page.texts)
    assert "Results left out" in text
    text, _ = check(make_run(path=tmp_path / "calm"))
    assert "No client failed" in text
    assert "Results left out" not in text


def test_many_clients_are_thinned_and_it_says_so(make_run: MakeRun) -> None:
    text, _ = check(make_run(clients=300, classes=100, rounds=900, every=1))
    assert "Shown are 60 of 300 clients" in text
    assert len(text) < 1_600_000


def test_holdings_count_what_the_federation_says(make_run: MakeRun) -> None:
    held = read_run(make_run(clients=7, fraction=0.5)).holdings
    assert held is not None
    assert held.total.shape == (7, 10)
    assert held.total.sum() == 6000
    assert (held.labeled <= held.total).all()
    assert (held.total.sum(axis=0) == 600).all()


def test_holdings_read_what_a_federation_saves(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, -1, 0, 2], dtype=np.int64)
    labeled = Ragged(np.array([0, 2]), np.array([0, 1, 2, 2]))
    unlabeled = Ragged(np.array([1, 3, 4, 5]), np.array([0, 2, 2, 4]))
    Federation.plain(labeled, unlabeled, labels, 3, {}).save(tmp_path / "federation.npz")
    held = read_holdings(tmp_path / "federation.npz")
    assert held is not None
    assert held.labeled.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert held.total.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert held.unknown.tolist() == [1, 0, 0]
    assert held.sizes.tolist() == [3, 1, 2]


def test_samples_that_are_labeled_and_unlabeled_count_once(tmp_path: Path) -> None:
    labeled = Ragged(np.array([0, 1, 1]), np.array([0, 1, 3]))
    unlabeled = Ragged(np.array([0, 2, 1, 1, 3]), np.array([0, 2, 5]))
    made = Federation.plain(labeled, unlabeled, np.array([0, 1, 2, -1]), 3, {})
    made.save(tmp_path / "federation.npz")
    held = read_holdings(tmp_path / "federation.npz")
    assert held is not None
    assert held.total.tolist() == [[1, 0, 1], [0, 2, 0]]
    assert held.unknown.tolist() == [0, 1]
    assert held.sizes.tolist() == made.held.sizes.tolist() == [2, 3]


def test_the_same_folder_gives_the_same_page(make_run: MakeRun) -> None:
    folder = make_run()
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.glob(".tmp-*"))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no run"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "federation.npz"])
def test_a_damaged_file_is_named(make_run: MakeRun, name: str) -> None:
    folder = make_run()
    (folder / name).write_bytes(b"PK\x03\x04 not what it seems")
    with pytest.raises(DataError, match=name):
        write_report(folder)


def test_settings_that_cannot_be_read_are_no_obstacle(make_run: MakeRun) -> None:
    text, _ = check(make_run(config="a: [1, 2\nb: }"))
    assert "config.yaml cannot be read" in text


def test_the_command_line(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    with pytest.raises(SystemExit) as done:
        main([str(folder)])
    assert done.value.code == 0
    assert str(folder / "report.html") in capsys.readouterr().err
    with pytest.raises(SystemExit) as refused:
        main([str(tmp_path)])
    assert refused.value.code == 2
    assert "holds no run" in capsys.readouterr().err
