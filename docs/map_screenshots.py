"""Take screenshots of the map for invented fleets, so that a person can look at them: `.venv/bin/python -m docs.map_screenshots`.

The screenshots are written to build/screenshots or to a given folder. Each size of fleet has a screenshot for each width and
colour scheme, a screenshot with the neighbours of a service, and the printed page as PDF.
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser

from fleet.map import show
from fleet.map.findings import findings
from fleet.page.map_page import map_page

ROOT = Path(__file__).resolve().parents[1]
FLEETS = (12, 40, 200)
WIDTHS = {390: 844, 1400: 900, 3840: 2160}
"""The height of the window for each width: a telephone, a laptop, and a 4K screen."""


def main(folder: Path) -> None:
    from tests.support.browser import browser

    folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for number in FLEETS:
            photograph(chromium, folder, number)


def photograph(chromium: Browser, folder: Path, number: int) -> None:
    from tests.fleet.map.fleets import fleet

    map_ = fleet(number)
    found = findings(map_)
    file = folder / f"map-{number}.html"
    file.write_text(map_page(show.html(map_, found)), encoding="utf-8")
    for width, height in WIDTHS.items():
        for scheme in ("light", "dark"):
            desk = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            desk.goto(file.as_uri())
            desk.screenshot(path=folder / f"map-{number}-{width}-{scheme}.png")
            if width == 1400:
                desk.goto(f"{file.as_uri()}#map/{found[0].services[0]}")
                desk.screenshot(path=folder / f"map-{number}-chosen-{scheme}.png")
            desk.close()
    sheet = chromium.new_page()
    sheet.goto(file.as_uri())
    sheet.pdf(path=folder / f"map-{number}.pdf", prefer_css_page_size=True, print_background=True)
    sheet.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "build/screenshots")
