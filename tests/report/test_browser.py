"""The pages in a browser: nothing goes wrong, charts are drawn, switches and files work."""

import csv
import io
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedlabels.report import write_report
from fedlabels.report.comparison.compare import Question, compare
from fedlabels.report.comparison.files import write_comparison

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

MakeRun = Callable[..., Path]
Open = Callable[..., Any]
CONFIG = """\
seed: {seed}
rounds: 20
partition: {{name: dirichlet, alpha: {alpha}}}
labels: {{name: uniform, fraction: {fraction}}}
client: {{name: {method}}}
"""
DRAWN = """[...document.querySelectorAll('.chart')].map((box) => ({
  kind: box.dataset.drawn ?? null,
  width: box.querySelector('.plot svg')?.getBoundingClientRect().width ?? 0,
  shapes: box.querySelectorAll('.plot svg path, .plot svg rect, .plot svg polygon').length,
}))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        options = {"executable_path": BROWSER, "args": ["--no-sandbox"]}
        opened = started.chromium.launch(**options)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Open a page; at the end nothing may have been said on the console or asked of a network."""
    said: list[str] = []
    contexts = []

    def visited(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: None if _is_local(r.url) else said.append(f"asked {r.url}"))
        page.goto(path.as_uri())
        see_all(page)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert said == []


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def see_all(page: Any) -> None:
    """Scroll through the page: charts are drawn when they come near."""
    page.evaluate("""async () => {
      for (let y = 0; y < document.documentElement.scrollHeight; y += 400) {
        window.scrollTo({ top: y, behavior: "instant" });
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 10)));
      }
      window.scrollTo({ top: 0, behavior: "instant" });
    }""")


def figure(page: Any, title: str) -> Any:
    return page.locator("figure", has=page.get_by_role("heading", name=title, exact=True))


def choose(page: Any, key: str, level: str) -> None:
    page.locator(f"select[name='{key}']").select_option(level)


def point_at(page: Any, card: Any) -> str:
    """Move the pointer into the middle of a chart; return what is said there."""
    box = card.locator(".plot").bounding_box()
    for step in (0, 3):
        page.mouse.move(box["x"] + 0.5 * box["width"] + step, box["y"] + 0.4 * box["height"])
    card.locator(".tip").wait_for(state="visible", timeout=5000)
    return str(card.locator(".tip").inner_text())


def table_of(page: Any, card: Any) -> list[list[str]]:
    """Return the numbers of a chart as its button saves them."""
    with page.expect_download() as saved:
        card.get_by_role("button", name="as CSV").click()
    text = Path(saved.value.path()).read_text()
    return list(csv.reader(io.StringIO(text)))


@pytest.fixture
def comparison(make_run: MakeRun, tmp_path: Path) -> Path:
    """Compare two methods at 2 x 2 settings with two seeds; one cell is missing."""
    for method in ("fedlabel", "fixmatch"):
        for alpha in (0.1, 1.0):
            for fraction in (0.01, 0.1):
                for seed in (0, 1):
                    if (method, alpha, fraction) == ("fixmatch", 1.0, 0.1):
                        continue
                    config = CONFIG.format(method=method, alpha=alpha, fraction=fraction, seed=seed)
                    manifest = {"method": method, "seed": seed, "overrides": []}
                    where = tmp_path / "runs" / f"{method}-{alpha}-{fraction}-{seed}"
                    make_run(config=config, manifest=manifest, path=where)
    found = compare([tmp_path / "runs"], Question(baseline="fixmatch"))
    return write_comparison(found, tmp_path / "out")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_run_is_drawn(make_run: MakeRun, visit: Open, scheme: str, width: int) -> None:
    page = visit(
        write_report(make_run(losses=True, clients=70)),
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )
    charts = page.evaluate(DRAWN)
    assert len(charts) > 10
    assert all(chart["kind"] and chart["width"] > 100 for chart in charts)
    assert all(chart["shapes"] >= 3 for chart in charts)
    assert {"lines", "bars", "heatmap", "squares"} <= {chart["kind"] for chart in charts}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 26)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [400, 1280])
def test_charts_fit_their_cards(make_run: MakeRun, visit: Open, width: int) -> None:
    path = make_run(rounds=200, figures=True, domains=3)
    page = visit(write_report(path), viewport={"width": width, "height": 900})
    wide = """[...document.querySelectorAll('.chart .scroll')].filter(
      (box) => box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight
    ).map((box) => box.closest('figure')?.id)"""
    assert page.evaluate(wide) == []
    out = """[...document.querySelectorAll('figure > *')].filter((one) => {
      const [inner, card] = [one, one.closest('figure')].map((e) => e.getBoundingClientRect());
      return inner.right > card.right || inner.bottom > card.bottom;
    }).map((one) => one.closest('figure').id)"""
    assert page.evaluate(out) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_themes_can_be_chosen(make_run: MakeRun, visit: Open) -> None:
    page = visit(write_report(make_run()), color_scheme="light")

    def look() -> tuple[str, str]:
        text = "document.querySelector('#test-accuracy svg text')?.getAttribute('fill')"
        body = "getComputedStyle(document.body).backgroundColor"
        return page.evaluate(body), page.evaluate(text)

    light = look()
    page.get_by_label("Theme").select_option("dark")
    dark = look()
    page.get_by_label("Theme").select_option("system")
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    assert look() == light


def test_a_pointed_at_place_says_its_values(make_run: MakeRun, visit: Open) -> None:
    page = visit(write_report(make_run()))
    card = figure(page, "Test accuracy")
    card.scroll_into_view_if_needed()
    said = point_at(page, card)
    rows = {row[1]: row[2] for row in table_of(page, card)[1:]}
    where = said.split("\n")[0].removeprefix("round ")
    assert f"{float(rows[where]):.1f}" in said


def test_a_line_can_be_hidden_and_shown(make_run: MakeRun, visit: Open) -> None:
    page = visit(write_report(make_run()))
    card = figure(page, "Loss")
    names = [row[0] for row in table_of(page, card)[1:]]
    assert set(names) == {"test", "training, labeled", "training, unlabeled"}
    button = card.get_by_role("button", name="training, labeled")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert "training, labeled" not in [row[0] for row in table_of(page, card)]
    button.click()
    assert [row[0] for row in table_of(page, card)[1:]] == names


def test_charts_can_be_saved(make_run: MakeRun, visit: Open) -> None:
    page = visit(write_report(make_run()), color_scheme="dark")
    for title in (
        "Test accuracy",
        "Recall by class over the rounds",
        "Samples by client and class",
    ):
        card = figure(page, title)
        with page.expect_download() as saved:
            card.get_by_role("button", name="as SVG").click()
        picture = ElementTree.fromstring(Path(saved.value.path()).read_text())
        words = "".join(picture.itertext())
        assert title in words
        assert saved.value.suggested_filename.endswith(".svg")
        with page.expect_download() as saved:
            card.get_by_role("button", name="as PNG").click()
        image = Image.open(saved.value.path())
        assert image.width >= 1500
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        colors = image.convert("RGB").getcolors(1 << 20)
        assert colors is not None
        assert len(colors) > 20


def test_paper_shows_everything_in_light_colors(make_run: MakeRun, visit: Open) -> None:
    path = write_report(make_run(clients=70))
    page = visit(path, color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 700, "height": 900})
    wide = """[...document.querySelectorAll('figure .plot svg')].filter((picture) => {
      const [inner, outer] = [picture, picture.closest('figure')];
      return inner.getBoundingClientRect().right > outer.getBoundingClientRect().right + 1;
    }).length"""
    assert page.evaluate(wide) == 0
    assert len(page.pdf(format="A4")) > 50_000


def test_nothing_in_a_run_folder_is_run(make_run: MakeRun, visit: Open) -> None:
    act = "document.title='taken'"
    bad = f'</script><script>{act}</script><img src=x onerror="{act}">'
    names = [f"{bad}{i}" for i in range(10)]
    page = visit(write_report(make_run(manifest={"name": bad, "class_names": names})))
    card = figure(page, "Samples of each class")
    card.scroll_into_view_if_needed()
    assert "onerror" in point_at(page, card)
    assert "taken" not in page.title().removeprefix(bad)
    assert page.locator("img").count() == 0


def test_a_comparison_is_drawn(comparison: Path, visit: Open) -> None:
    page = visit(comparison)
    charts = page.evaluate(DRAWN)
    assert {"lines", "bars", "boxes", "heatmap", "squares"} <= {one["kind"] for one in charts}
    assert all(chart["kind"] for chart in charts)
    assert all(chart["shapes"] >= 3 for chart in charts if chart["width"])
    labels = {row[0] for row in table_of(page, figure(page, "Test accuracy over the rounds"))[1:]}
    assert labels == {"fedlabel", "fixmatch"}


def test_a_method_can_be_switched_off(comparison: Path, visit: Open) -> None:
    page = visit(comparison)
    rows = page.locator("tr[data-method=fixmatch]")
    maps = page.locator("figure[data-method=fixmatch]")
    assert rows.count() > 2
    assert maps.count() >= 1
    page.get_by_role("checkbox", name="fixmatch").uncheck()
    assert not any(row.is_visible() for row in rows.all())
    assert not any(one.is_visible() for one in maps.all())
    see_all(page)
    for title in ("Test accuracy over the rounds", "Test accuracy over alpha"):
        labels = {row[0] for row in table_of(page, figure(page, title))[1:]}
        assert labels == {"fedlabel"}
    assert [row[0] for row in table_of(page, figure(page, "Accuracy by client"))[1:]] == [
        "fedlabel"
    ]
    recall = table_of(page, figure(page, "Recall by class"))
    assert [row[0] for row in recall[1:]] == ["fedlabel"]
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('tr[data-method=fixmatch]').checkVisibility()")
    recall = table_of(page, figure(page, "Recall by class"))
    assert [row[0] for row in recall[1:]] == ["fedlabel", "fixmatch"]


def test_a_setting_can_be_chosen(comparison: Path, visit: Open) -> None:
    page = visit(comparison)
    curves = figure(page, "Test accuracy over the rounds")
    choose(page, "partition.alpha", "1")
    choose(page, "labels.fraction", "0.1")
    assert {row[0] for row in table_of(page, curves)[1:]} == {"fedlabel"}
    choose(page, "labels.fraction", "0.01")
    assert {row[0] for row in table_of(page, curves)[1:]} == {"fedlabel", "fixmatch"}
    # a chart over the fractions does not depend on the chosen one
    over = table_of(page, figure(page, "Test accuracy over fraction"))
    choose(page, "labels.fraction", "0.1")
    assert table_of(page, figure(page, "Test accuracy over fraction")) == over


def test_a_setting_without_a_run_says_so(comparison: Path, visit: Open) -> None:
    page = visit(comparison)
    page.get_by_role("checkbox", name="fedlabel").uncheck()
    choose(page, "partition.alpha", "1")
    choose(page, "labels.fraction", "0.1")
    curves = figure(page, "Test accuracy over the rounds")
    assert curves.get_by_text("There is no run at this setting.").is_visible()
    assert not curves.locator(".plot").is_visible()
