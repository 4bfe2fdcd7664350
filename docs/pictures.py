"""Make the pictures of the front page from programs that run: `make pictures`. It takes a minute on an idle machine.

The tests compare the shape of each picture, which is its text without numbers, with what the programs show today.
"""

import html
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from demo.__main__ import BILLING
from docs.example_fleet import content
from docs.example_map import with_example_map
from fleet.page import page
from tests.support.leftovers import clean_up_after_this_process

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/pictures"
DEV, TRACE, FLEET = FOLDER / "dev.svg", FOLDER / "trace.svg", FOLDER / "fleet.png"
MAP = FOLDER / "map.svg"
HEADINGS = FOLDER / "fleet.txt"
"""The headings of the page in FLEET, because a PNG cannot be read."""

PANELS = ("trace", "map")
"""The views of the page of traces that are photographed, as `page-<view>-<width>.png`."""

WIDTHS = {390: 700, 1100: 520}
"""The height of the picture for each width: a telephone and a laptop."""

COLUMNS = 108
WIDTH, HEIGHT = 1000, 560
SERVICES = 40
"""The size of the example fleet."""


def main() -> None:
    clean_up_after_this_process()
    FOLDER.mkdir(exist_ok=True)
    demo = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "CI": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    TRACE.write_text(svg(trace_in(demo.stdout), "one trace through five services"))
    DEV.write_text(svg(dev(), "billing"))
    HEADINGS.write_text("".join(f"{heading}\n" for heading in headings(fleet())))
    MAP.write_text(drawn_map())
    photograph(fleet(), FLEET)
    photograph_traces()


def trace_in(shown: str) -> str:
    """The trace in what `make demo` shows."""
    lines = shown.partition("as one trace")[2].splitlines()
    return "\n".join(line[2:].rstrip() for line in lines if line.endswith(" ms"))


def dev() -> str:
    """Run `make dev`, and ask for the first answer."""
    with BILLING.running() as running:
        shown = dev_in((BILLING.folder / ".dev/demo.log").read_text())
        address = f"{running.base}/v1/invoices?limit=1"
        curl = ["curl", "-si", "-H", f"Authorization: Bearer {running.token()}", address]
        answer = subprocess.run(curl, check=True, capture_output=True, text=True).stdout
    typed = f"$ make dev\n{shown}\n\n$ curl -i -H \"Authorization: Bearer $token\" '{address}'\n{answer}"
    return re.sub(r"(?<=127\.0\.0\.1:)\d+(?=/v1|/docs|/readyz)", "8000", typed)


def dev_in(log: str) -> str:
    """The addresses that `make dev` shows, without log lines, the password of the database and the token of the viewer."""
    secret = r"(?<=://postgres:)[^@]+|(?<=/)[\w-]{22}(?=/\n)"
    shown = re.sub(secret, "…", log.partition("Try it:")[0]).splitlines()
    return "\n".join(line.rstrip() for line in shown if not re.match(r"\s*Port \d+ is taken|\d{4}-", line)).strip("\n")


def svg(text: str, title: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system=None)
    console.print(Text(text, overflow="ellipsis", no_wrap=True))
    made = console.export_svg(title=title, unique_id=re.sub(r"\W+", "-", title))
    return re.sub(r"@font-face \{.*?\}\s*", "", made, flags=re.DOTALL)  # the removed fonts come from another host


def text_in(picture: Path) -> str:
    """The text of a picture that `svg` made."""
    lines: dict[int, str] = {}
    for number, text in re.findall(r'line-(\d+)\)">(.*?)</text>', picture.read_text()):
        lines[int(number)] = lines.get(int(number), "") + html.unescape(text).replace("\xa0", " ")
    return "\n".join(lines[number].rstrip() for number in sorted(lines))


def shape(text: str) -> set[str]:
    """The lines, whatever their order, without what differs from run to run: numbers, ids, widths."""
    words = (re.sub(r"\S*\d\S*", "#", " ".join(line.split())) for line in text.splitlines())
    return {line for line in words if line}


def fleet() -> str:
    """The page of an example fleet, as `fleet status --format html --record history.jsonl` writes it."""
    return page(with_example_map(content(SERVICES)))


def drawn_map() -> str:
    """The map of an example fleet, as `fleet map --format svg` writes it."""
    from fleet.map.findings import findings
    from fleet.map.svg import svg as draw
    from tests.fleet.map.fleets import fleet as example

    map_ = example(12)
    return draw(map_, findings(map_))


def headings(page: str) -> list[str]:
    """The titles, and the columns of tables, in order and without numbers."""
    found = re.findall(r"<(?:h[123]|th scope=\"col\")[^>]*>(.*?)</(?:h[123]|th)>", page)
    return [re.sub(r"<[^>]+>", "", heading) for heading in re.sub(r"\d+", "#", "\n".join(found)).splitlines()]


def photograph(page: str, picture: Path) -> None:
    from tests.support.browser import browser

    file = ROOT / "build/fleet.html"
    file.write_text(page, encoding="utf-8")
    with browser() as chromium:
        desk = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        desk.goto(file.as_uri())
        desk.screenshot(path=picture)


def photograph_traces() -> None:
    """Show an example product on the page of `chassis.dev.viewer`, in each width, light and dark in turn."""
    from chassis.dev.viewer import server

    from docs.example_product import Shop, fill
    from tests.support.browser import browser

    with tempfile.TemporaryDirectory() as folder, server.running(Path(folder), product=Shop()) as shown:
        trace = fill(shown.store)
        with browser() as chromium:
            for (width, height), scheme in zip(WIDTHS.items(), ("dark", "light"), strict=True):
                page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                for panel in PANELS:
                    page.goto(f"{shown.url}#/{f'traces/{trace}' if panel == 'trace' else panel}")
                    page.locator("#waterfall .row, #drawing .node").first.wait_for()
                    page.screenshot(path=FOLDER / f"page-{panel}-{width}.png")


if __name__ == "__main__":
    main()
