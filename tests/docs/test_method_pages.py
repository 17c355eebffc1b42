"""The pages of the methods: every setting with its true default, every label that code cites."""

import dataclasses
import re
from pathlib import Path

import pytest

from fedlabels import clients, strategies
from fedlabels.cohort.training import own_names, training_names

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "methods"
CLIENTS = {
    "fedlabel": "fedlabel",
    "fedavg": "fedavg",
    "fedprox": "fedprox",
    "fixmatch": "fixmatch",
    "fedbn": "fedbn",
    "fedld": "fedld",
    "fedsa": "fedsa",
    "fedproto": "fedproto",
}
SERVERS = {"fedlabel": "fedlabel", "fedprox": "fedprox", "fedadam": "fedadam", "fedld": "fedld"}
SERVERS |= {name: name for name in ("fedsa", "fedproto", "fedtgp")}


def read(page):
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def shown(page, server):
    """Read the tables of settings of a page: name -> default as written."""
    text = read(page)
    parts = re.split(r"^(?:## Settings of the (server|client)|(Server|Client):)", text, flags=re.M)
    if len(parts) == 1:
        return {}
    rows = {}
    for kind, other, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if ((kind or other).lower() == "server") == server:
            section = re.split(r"^## ", body, flags=re.M)[0]
            rows.update(re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", section, flags=re.M))
    return rows


def written(value):
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def defaults(kind):
    return {f.name: written(f.default) for f in dataclasses.fields(kind)}


@pytest.mark.parametrize("page", CLIENTS)
def test_client_settings_and_defaults(page):
    kind = clients.find(CLIENTS[page])
    values, trained = defaults(kind), training_names(kind)
    true = {n: values[n] for n in own_names(kind)} | {f"training.{n}": values[n] for n in trained}
    rows = shown(page, server=False)
    assert rows.items() <= true.items()
    inherited = {} if page == "fedavg" else shown("fedavg", server=False)
    assert set(true) <= set(rows) | set(inherited)


@pytest.mark.parametrize("page", SERVERS)
def test_server_settings_and_defaults(page):
    assert shown(page, server=True) == defaults(strategies.find(SERVERS[page]).Settings)


LABEL = (
    r"\b(?:F(?:[1-79]|8[ab]|10[ab]|11[ab])|A[12]|B[123]|H[12]"
    r"|S(?:[1-9]|10|3b)|P(?:2b?|[34])|T(?:[13]|2b?))\b"
)


def test_every_label_is_defined():
    defined = set()
    for path in PAGES.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        defined |= set(re.findall(rf"^(?:    |\| |## )({LABEL})", text, flags=re.M))
    cited = set()
    for package in ("fedlabels",):
        for path in (ROOT / package).rglob("*.py"):
            cited |= set(re.findall(LABEL, path.read_text(encoding="utf-8")))
    assert len(cited) > 15
    assert cited <= defined


def test_the_pages_that_code_cites_exist():
    cited = set()
    for package in ("fedlabels",):
        for path in [*(ROOT / package).rglob("*.py"), *(ROOT / package).rglob("*.yaml")]:
            cited |= set(re.findall(r"docs/methods/\w+\.md", path.read_text(encoding="utf-8")))
    assert len(cited) > 1
    assert [page for page in cited if not (ROOT / page).is_file()] == []


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (PAGES / target).is_file(), target


@pytest.mark.parametrize("page", sorted({"fedavg", "fedwon", *CLIENTS, *SERVERS}))
def test_commands_name_presets_that_exist(page):
    used = re.findall(r"method=(\w+)", read(page))
    assert used
    assert [m for m in used if not (ROOT / "configs" / "method" / f"{m}.yaml").is_file()] == []
