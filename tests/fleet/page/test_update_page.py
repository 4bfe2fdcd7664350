"""The report of `fleet update-all` as one HTML file."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.page.update_page import Run, gather, update_page
from fleet.service.fleet_toml import Member
from fleet.update.logs import failed_steps, last_lines
from fleet.update.outcomes import Outcome, Verdict
from fleet.update.requests import Request
from tests.fleet.page.fleets import HOSTILE, Open
from tests.support.needs import AXE
from tests.support.npm import packed

BASE = Outcome("", "a" * 40, "v1.0.0", "v1.3.0", "slipway/v1.3.0", "main", "b" * 40, updated=True)

LOG = """\
make[1]: *** [Makefile:75: layers] Error 1
make: *** [Makefile:68: check] Error 2
lint failed: 'make format' fixes what can be fixed safely.
make[1]: *** [Makefile:75: lint] Error 1
make[1]: *** [test] Error 1
make[1]: *** [Makefile:9: <script>] Error 1
make: *** [Makefile:68: check] Error 2
fetched https://user:token@git.example.com/x
"""

RESULTS = {
    "broken": replace(BASE, failure="f", gate="check", before={"check": True}),
    "specs": replace(BASE, failure="f", gate="specs", before={"specs": True}),
    "unclear": replace(BASE, failure="f", gate="check"),
    "red": replace(BASE, failure="f", gate="check", before={"specs": True, "check": False}),
    "gone": Outcome("", failure=f"{HOSTILE} has no `branch`\nsecond line"),
    "well": replace(BASE, tested=True, pushed=True),
    "local": replace(BASE),
    "current": replace(BASE, tip="", old="v1.3.0"),
    HOSTILE: replace(BASE, failure="f", gate="check", before={"check": True}),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    log = tmp_path / "x.log"
    log.write_text(LOG + HOSTILE)
    members = [Member(name, f"git@github.com:acme/{number}.git") for number, name in enumerate(RESULTS)]
    outcomes = [replace(one, name=name, log=str(log), place="/clones/billing") for name, one in RESULTS.items()]
    opened = [Request("well", "gh pr create", "https://github.com/acme/well/pull/7", is_new=True)]
    return gather(members, outcomes, opened, {})


def text_of(page: str, id_: str) -> str:
    """Return the text of one section, on one line."""
    section = page.partition(f'id="{id_}" ')[2].partition("</section>")[0]
    return " ".join(re.sub("<[^>]*>", " ", section).split())


def test_each_verdict_follows_from_the_gate_that_failed() -> None:
    verdicts = [one.verdict for one in RESULTS.values()]
    assert verdicts == [
        *(Verdict.BROKEN, Verdict.BROKEN, Verdict.UNCLEAR, Verdict.RED_BEFORE, Verdict.SKIPPED),
        *(Verdict.DONE, Verdict.DONE, Verdict.UP_TO_DATE, Verdict.BROKEN),
    ]
    # A gate that was red in an earlier run does not explain a refused push.
    assert replace(BASE, failure="refused", before={"check": False}).verdict is Verdict.SKIPPED


def test_the_last_attempt_in_a_log_names_the_steps_that_failed(run: Run) -> None:
    log = run.parts[0].outcome.log
    assert failed_steps(log) == ["lint", "test"]
    assert "fetched https://git.example.com/x" in last_lines(log)
    assert (failed_steps("/gone.log"), last_lines("")) == ([], [])


def test_the_page_states_for_each_service_the_result_and_the_gate_before_the_update(run: Run) -> None:
    page = update_page(run)
    assert "<strong>2</strong> of 8 updates are done" in page
    assert re.findall(r"<h2[^>]*>([^<]*)", page) == [
        "Broken by the update: 3 services",
        "Failed, cause unknown: 1 service",
        "Skipped: 1 service",
        "Red before the update: 1 service",
        "Done: 2 services",
        "Up to date: 1 service",
    ]
    broken = text_of(page, "broken")
    assert "make check was green before the update, and fails now: lint , test" in broken
    assert "make specs was green before the update, and fails now Before the update means commit aaaaaaaaaaaa" in broken
    assert "make check was red before the update, and still is: lint , test" in text_of(page, "red-before")
    assert "fails, and whether it was green before the update is not known" in text_of(page, "unclear")
    assert "has no branch second line" in text_of(page, "skipped")
    done = text_of(page, "done")
    assert "well v1.0.0 → to v1.3.0 green slipway/v1.3.0, pushed request 7 , opened now" in done
    assert "local v1.0.0 → to v1.3.0 not run slipway/v1.3.0 none: the branch is not pushed" in done
    assert text_of(page, "up-to-date").endswith("current v1.3.0")
    assert 'href="https://github.com/acme/0"' in page


def test_names_reasons_and_logs_are_text_and_the_page_runs_no_script(run: Run) -> None:
    page = update_page(run)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "token" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'" in page


def test_a_fleet_that_needs_no_update_is_a_page_too(run: Run) -> None:
    assert "No service needs an update" in update_page(replace(run, parts=[run.parts[7]]))


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_report_fits_each_screen_and_has_no_fault_of_accessibility(opened: Open, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "update.html"
    file.write_text(update_page(run), encoding="utf-8")
    script = packed(AXE, "axe.min.js").read_text(encoding="utf-8")
    for width, scheme in ((390, "dark"), (1400, "light")):
        page = opened(file, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(script)
        assert page.evaluate("axe.run(document).then(result => result.violations)") == []
