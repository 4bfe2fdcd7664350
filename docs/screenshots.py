"""Take screenshots of the page of `fleet status` for invented fleets, so that a person can look at them: `make screenshots`.

The screenshots are written to build/screenshots or to a given folder, one for each size of fleet, width and colour scheme.
"""

import sys
from pathlib import Path

from docs.example_fleet import content
from docs.example_map import with_example_map
from fleet.page import page

ROOT = Path(__file__).resolve().parents[1]
FLEETS = (12, 40, 200)
WIDTHS = {390: 844, 1400: 900, 3840: 2160}
"""The height of the window for each width: a telephone, a laptop, and a 4K screen."""


def main(folder: Path) -> None:
    from tests.support.browser import browser

    folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for number in FLEETS:
            file = folder / f"fleet-{number}.html"
            file.write_text(page(with_example_map(content(number))), encoding="utf-8")
            for width, height in WIDTHS.items():
                for scheme in ("light", "dark"):
                    desk = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                    desk.goto(file.as_uri())
                    desk.screenshot(path=folder / f"fleet-{number}-{width}-{scheme}.png")
                    if scheme == "light":
                        desk.screenshot(path=folder / f"fleet-{number}-{width}-whole.png", full_page=True)
                    desk.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "build/screenshots")
