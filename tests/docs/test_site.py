"""The site: built strictly, every page in it and reachable, nothing loaded from elsewhere."""

import json
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml

from tests.waiting import LIMIT

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OUTSIDE = {name.lower(): ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))} | OUTSIDE
BUILDS = pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("material")),
    reason="mkdocs-material is not installed: pip install 'fedlabels[docs]'",
)
# What a browser fetches by itself; a link of an <a> is only followed.
ASSETS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Tags(HTMLParser):
    """Collects what a page fetches, what it links to, and its ids."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        self.classes |= set(given.get("class", "").split())
        if given.get(ASSETS.get(tag, "")):
            self.assets.append(given[ASSETS[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return folder


def html(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def nav(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        for target in entry.values() if isinstance(entry, dict) else (entry,):
            if isinstance(target, list):
                yield from nav(target)
            else:
                yield str(target)


def outer(url: str) -> bool:
    return re.match(r"([a-z]+:)?//", url) is not None


def test_every_page_is_in_the_navigation_once() -> None:
    # MkDocs has tags of its own in such files, but none of them here
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(nav(config["nav"])) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_hold_on_a_code_host(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = {urldefrag(target)[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    inner = {target for target in targets if target and not outer(target)}
    assert [t for t in inner if not PAGES[page].parent.joinpath(t).exists()] == []


@BUILDS
def test_every_page_is_built_with_its_heading(site: Path) -> None:
    for page in PAGES:
        built = (site / page).with_suffix(".html").read_text(encoding="utf-8")
        title = PAGES[page].read_text(encoding="utf-8").split("\n")[0].removeprefix("# ")
        assert re.search(rf"<h1[^>]*>{re.escape(title)}", built), page


@BUILDS
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert len(html(site)) == len(PAGES)
    for page in [*html(site), site / "404.html"]:
        tags = Tags(page)
        assert [url for url in tags.assets if outer(url)] == [], page
        # the theme's script would fetch a library for the first, and figures for the second
        assert not tags.classes & {"mermaid", "md-source"}, page
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "@import" not in text, style
        assert not re.search(r"url\(\s*[\"']?(https?:)?//", text), style


@BUILDS
def test_every_link_inside_leads_to_a_file_and_a_place_in_it(site: Path) -> None:
    pages = {page: Tags(page) for page in html(site)}
    for page, tags in pages.items():
        for url in (*tags.links, *tags.assets):
            if outer(url) or ":" in url.split("/")[0]:
                continue
            path, fragment = urldefrag(unquote(url))
            target = Path(posixpath.normpath(page.parent / path)) if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_relative_to(site), (page, url)
            assert target.is_file(), (page, url)
            if fragment and target in pages:
                assert fragment in pages[target].ids, (page, url)


@BUILDS
def test_results_are_copied_as_they_are(site: Path) -> None:
    copies = [path for path in (site / "benchmarks").rglob("*") if path.is_file()]
    assert len(copies) > 3
    for copy in copies:
        assert copy.read_bytes() == (ROOT / copy.relative_to(site)).read_bytes()
    assert "../benchmarks" not in (site / "benchmarks.html").read_text(encoding="utf-8")


@BUILDS
def test_code_in_tables_shows_no_escapes(site: Path) -> None:
    for page in html(site):
        assert r"\|" not in page.read_text(encoding="utf-8"), page


@BUILDS
def test_search_needs_no_server(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_bytes())
    assert {entry["location"].split(".html")[0] for entry in index["docs"]} >= {
        page.removesuffix(".md") for page in PAGES
    }
    # opened from disk, a page can load scripts but no data and no worker
    assert (site / "search" / "search_index.js").is_file()
    assert "assets/iframe-worker.js" in Tags(site / "index.html").assets


@BUILDS
def test_the_first_page_has_a_picture_and_both_palettes(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<img [^>]*src=\"pictures/", text)
    assert 'data-md-color-scheme="default"' in text
    assert 'data-md-color-scheme="slate"' in text
