"""Hooks of the site: links out of docs/ lead to copies in the site.

Pages link figures and numbers where they lie, ``../benchmarks/results/x.svg``: so a code host shows
them. A site has only what is in docs/; here such files are added to it, and the links rewritten.
Two pages lie where a code host looks for them, beside docs/, and are pages of the site, too.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SHARED = "benchmarks/results/"  # all of the repository outside docs/ that the site may hold
OUTSIDE = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s#]+)(\)|#)")


def _meant(page: str, target: str) -> str:
    """Return the file that a link of a page means, relative to the repository."""
    source = OUTSIDE.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _source(page: str, target: str) -> str | None:
    """Return the file that a link of a page means, if it is outside of docs/ and shared."""
    path = _meant(page, target)
    return path if path.startswith(SHARED) and (ROOT / path).is_file() else None


def _in_site(page: str, target: str) -> str | None:
    """Return where in the site the file lies that a link means, if its link must be rewritten."""
    path = _meant(page, target)
    moved = {source: uri for uri, source in OUTSIDE.items()}.get(path) or _source(page, target)
    return moved or (path.removeprefix("docs/") if page in OUTSIDE and "docs/" in path else None)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files that pages link outside of docs/."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=os.fspath(ROOT / source)))
    linked = set()
    for page in files.documentation_pages():
        links = _LINK.findall(page.content_string)
        linked |= {_source(page.src_uri, target) for _, target, _ in links}
    for path in sorted(path for path in linked if path):
        files.append(File.generated(config, path, abs_src_path=os.fspath(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to those files lead to the copies; MkDocs itself finds what is left broken."""
    here = page.file.src_uri

    def rewritten(link: re.Match[str]) -> str:
        path = _in_site(here, link[2])
        if path is None:
            return link[0]
        return f"{link[1]}{posixpath.relpath(path, posixpath.dirname(here) or '.')}{link[3]}"

    return _LINK.sub(rewritten, markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the escapes out of the code in tables, as code hosts do; Markdown's library does not."""
    return _CELL.sub(lambda cell: cell[0].replace(r"\|", "|"), html)
