"""The page of settings: what the code says, with a meaning for every key, and no key left out."""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedlabels import clients, strategies
from fedlabels.federation import PARTITIONS, POLICIES
from fedlabels.settings import reference
from fedlabels.settings.config import register
from fedlabels.settings.docstrings import explained, markdown, parameters

CONFIGS = reference.CONFIGS
GROUPS = ("dataset", "model", "backend", "callbacks", "tracker", "method", "sweep", "preset")
OPTIONS = {
    "partition": sorted(PARTITIONS),
    "labels": sorted(POLICIES),
    "client": clients.names(),
    "strategy": strategies.names(),
    **{group: [path.stem for path in sorted((CONFIGS / group).glob("*.yaml"))] for group in GROUPS},
}


@cache
def page() -> str:
    return reference.page()


def leaves(config: Mapping[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in config.items():
        inner = leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else set()
        found |= inner or {f"{prefix}{key}"}
    return found


def composed(*overrides: str) -> set[str]:
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    plain: Any = OmegaConf.to_container(config, resolve=False)
    plain.pop("hydra", None)
    plain["sweep"].pop("per_method")  # by method: its keys are names of methods
    return leaves(plain) | {"sweep.per_method"}


def test_the_page_in_docs_is_what_the_module_writes() -> None:
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == page(), f"docs/settings.md is out of date: {reference.COMMAND}"


def test_every_key_has_a_meaning_a_type_and_a_default() -> None:
    rows = [row for section in reference.sections() for row in section.every()]
    assert len(rows) > 300
    assert [row.key for row in rows if not (row.meaning and row.kind and row.default)] == []


def test_no_meaning_sends_the_reader_elsewhere() -> None:
    rows = [row for section in reference.sections() for row in section.every()]
    assert [row.key for row in rows if re.match("(See|As in) ", row.meaning)] == []


@pytest.mark.parametrize("group", sorted(OPTIONS))
def test_every_key_of_every_composed_config_is_on_the_page(group: str) -> None:
    keys = {key for option in OPTIONS[group] for key in composed(f"{group}={option}")}
    assert sorted(key for key in keys if f"`{key}`" not in page()) == []


@pytest.mark.parametrize("group", sorted(set(OPTIONS) - {"backend"}))
def test_every_option_is_on_the_page(group: str) -> None:
    assert [option for option in OPTIONS[group] if f"`{group}={option}`" not in page()] == []


def test_a_section_has_no_key_twice_for_one_option() -> None:
    for section in reference.sections():
        for name, (_, rows) in section.options.items():
            keys = Counter(row.key for row in rows)
            assert [key for key, times in keys.items() if times > 1] == [], name


def test_check_tells_a_page_that_is_out_of_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.md"
    assert reference.main(["--check", str(file)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert reference.main([str(file)]) == 0
    assert reference.main(["--check", str(file)]) == 0
    file.write_text(file.read_text(encoding="utf-8").replace("per_round", "round_size"))
    assert reference.main(["--check", str(file)]) == 1


class Base:
    """Base.

    Parameters
    ----------
    rate, share : float
        Share, in [0, 1];
        None is all.

    Notes
    -----
    note : str
        No parameter.
    """


class Own(Base):
    """Own.

    Parameters
    ----------
    rate
        See `Base`; here halved.
    """


class Bare(Own):
    pass


def test_meanings_come_from_the_class_and_its_bases() -> None:
    assert parameters(Base) == dict.fromkeys(
        ("rate", "share"), ("float", "Share, in [0, 1]; None is all.")
    )
    assert explained(Bare)["rate"] == ("float", "Share, in [0, 1]; None is all. here halved.")
    assert explained(Bare)["share"][0] == "float"


def test_markup_becomes_markdown() -> None:
    assert markdown("a * :class:`~x.y.Z` < ``b * c``, docs/data.md") == (
        r"a \* `Z` &lt; `b * c`, [data](data.md)"
    )
