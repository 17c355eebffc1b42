"""Makes the pictures of these pages in headless Chromium.

    python docs/_pictures.py previews
    python docs/_pictures.py run runs/2026-11-21/10-00-00
    python docs/_pictures.py comparison runs/sweeps/label_scarcity/comparison/comparison.html

The previews need Fashion-MNIST (make data) and the watch recordings
(pip install --no-deps seglearn).
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from fedlabels.report import write_report

PICTURES = Path(__file__).parent / "pictures"
COLORS = 256
PREVIEWS = {
    "dirichlet": "dataset=fashion_mnist partition.alpha=0.3 labels.fraction=0.05",
    "class_mismatch": "dataset=fashion_mnist partition.alpha=0.1 clients=40"
    " labels=class_mismatch labels.fraction=0.1",
    "zero_label_clients": "dataset=fashion_mnist partition=shards clients=50"
    " labels=zero_label_clients labels.share=0.3 label_noise.kind=symmetric label_noise.rate=0.2",
    "long_tail": "dataset=fashion_mnist partition=client_dirichlet partition.alpha=1 clients=30"
    " long_tail.factor=0.02 labels=stratified test_shards.share=1",
    "watch": "dataset=watch partition=natural clients=10 labels.fraction=0.05",
    "domains": "dataset=fashion_mnist shift.preset=sfs4 clients=20 partition=domain"
    " partition.within=dirichlet partition.alpha=0.3 labels=beta labels.fraction=0.2",
}


def shoot(page: Path, name: str, until: str, width: int = 1100) -> None:
    """Take a picture of a page from its top to the end of the first thing that `until` selects."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        shown = browser.new_page(viewport={"width": width, "height": 2600}, color_scheme="light")
        shown.goto(page.as_uri())
        shown.wait_for_timeout(800)
        box = shown.locator(until).first.bounding_box()
        assert box is not None
        end = min(2600, box["y"] + box["height"] + 12)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            clip = {"x": 0.0, "y": 0.0, "width": float(width), "height": end}
            shown.screenshot(path=file.name, clip=clip)
            image = Image.open(file.name).convert("RGB").quantize(COLORS)
            image.save(PICTURES / f"{name}.png", optimize=True)
        browser.close()


def previews() -> None:
    """Take a picture of every preview in heterogeneity.md."""
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in PREVIEWS.items():
            page = Path(folder) / "preview.html"
            command = ["-m", "fedlabels.preview", *overrides.split()]
            subprocess.run(
                [sys.executable, *command, f"picture={page}"], check=True, capture_output=True
            )
            shoot(page, f"preview_{name}", "#samples-by-client")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["previews", "run", "comparison"])
    parser.add_argument("path", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "previews":
        previews()
    elif given.path is None:
        parser.error(f"{given.what} needs a path")
    elif given.what == "run":
        shoot(write_report(given.path).absolute(), "report_run", "#pseudo-labels")
    else:
        shoot(given.path.absolute(), "report_comparison", "#overview figure:nth-child(5)")


if __name__ == "__main__":
    main()
