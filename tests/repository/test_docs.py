"""Pages are fresh, links lead somewhere, and the targets and settings that pages name exist."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

from docs import generate_conventions, pictures
from tests.support.answers import EVERY_PART
from tests.support.paths import ROOT
from tests.support.services import Render

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"(?:^|[`;&] ?|^\w+=\S+ )make ((?:[a-z][a-z-]*(?=[ `\n#]|$) ?)+)", re.MULTILINE)


@pytest.fixture(scope="module")
def service(render: Render) -> Path:
    return render()


def targets(makefile: Path) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile.read_text(), re.MULTILINE))


def named_targets(page: str) -> set[str]:
    """Find the targets in `make a b` in the code of a page."""
    return set(chain.from_iterable(found.split() for code in CODE.findall(page) for found in TARGET.findall(code)))


def anchors(page: str) -> set[str]:
    """Return the fragments of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    text = page.read_text()
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        path, _, fragment = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = page.parent / path if path else page
        if not target.exists() or (fragment and fragment not in anchors(target.read_text())):
            broken.append(link)
    return broken


def chassis_settings() -> set[str]:
    tree = ast.parse((ROOT / "template/chassis/src/chassis/settings/settings.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")]
    fields = [node for each in classes for node in each.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target).upper() for node in fields}


def test_the_list_of_conventions_is_fresh() -> None:
    fresh = generate_conventions.PAGE.read_text() == generate_conventions.page()
    assert fresh, "run `python docs/generate_conventions.py`"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_index_of_decisions_lists_each_record_once_in_order() -> None:
    folder = ROOT / "docs/decisions"
    listed = re.findall(r"^- \[\d{4}\]\((.*?)\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def test_the_readme_leads_to_each_page_of_reference_and_explanation() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [
        path.relative_to(ROOT) for kind in ("reference", "explanation") for path in (ROOT / "docs" / kind).glob("*.md")
    ]
    assert [page for page in pages if f"({page})" not in readme] == []


def test_every_link_in_a_newborn_service_leads_somewhere(service: Path) -> None:
    # The first `make setup` writes specs/.
    pages = [service / "README.md", *(service / "docs").rglob("*.md")]
    assert {link for page in pages for link in broken_links(page)} <= {"specs/openapi.json"}


@pytest.mark.slow
def test_every_make_target_that_is_named_exists(service: Path, render: Render) -> None:
    theirs, ours = targets(service / "Makefile"), targets(ROOT / "Makefile")
    complete = targets(render(messaging_style="events", **EVERY_PART) / "Makefile")
    for page in PAGES:
        assert named_targets(page.read_text()) <= complete | ours, page
    seeded = [service / "AGENTS.md", service / "README.md", *(service / "docs").rglob("*.md")]
    for page in [*seeded, *(ROOT / "docs/how-to").glob("add-*.md")]:
        assert named_targets(page.read_text()) <= theirs, page


def listed_settings(page: Path) -> set[str]:
    table = page.read_text().partition("## Settings")[2]
    return set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))


def test_the_runbook_and_the_page_about_messages_list_each_setting_once(render: Render) -> None:
    docs = render(messaging_style="events") / "docs"
    general, of_messages = listed_settings(docs / "runbook.md"), listed_settings(docs / "messages.md")
    assert general & of_messages == set()
    assert general | of_messages == chassis_settings()


def test_the_runbook_of_a_service_without_messages_names_no_broker_or_worker(service: Path) -> None:
    assert (
        re.findall(r".*(?:broker|worker|outbox|message\b|messages).*", (service / "docs/runbook.md").read_text()) == []
    )


def test_the_layout_page_has_the_list_of_team_owned_paths() -> None:
    section = (ROOT / "docs/reference/layout.md").read_text().partition("## Team-owned")[2].partition("\n## ")[0]
    owned = yaml.safe_load((ROOT / "ownership/service-owned.yml").read_text())
    assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == owned


def defined(file: Path) -> set[str]:
    """The functions and classes of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds)}


def test_each_walk_through_the_code_names_existing_files_and_their_functions_once(service: Path) -> None:
    folders = {"chassis": ROOT / "template/chassis/src", "fleet": ROOT, "src": service.resolve()}
    for walk in (ROOT / "docs/explanation/walks.md").read_text().split("|---|---|---|")[1:]:
        rows = re.findall(r"^\| `([^`…]+)` \| `([^`]+)` \|", walk, re.MULTILINE)
        assert len(rows) > 5
        assert len({path for path, _ in rows}) == len(rows), "a walk enters a file twice"
        for path, name in rows:
            assert name in defined(folders[path.partition("/")[0]] / path), path


def test_the_picture_of_the_fleet_has_the_headings_of_its_page() -> None:
    fresh = pictures.HEADINGS.read_text().splitlines() == pictures.headings(pictures.fleet())
    assert fresh, "run `make pictures`: the picture in README.md does not show today's page"


def test_the_picture_of_the_map_is_drawn_as_today() -> None:
    assert pictures.MAP.read_text() == pictures.drawn_map(), "run `make pictures`: the picture shows an older drawing"


def test_pictures_are_small_and_load_nothing() -> None:
    for picture in pictures.FOLDER.iterdir():
        assert picture.stat().st_size < 100_000, picture
        if picture.suffix == ".svg":
            assert re.findall(r"(?:href|src|url\()=?[\"']?https?:", picture.read_text()) == [], picture


def test_the_shape_of_a_picture_is_its_text_without_numbers(tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    picture.write_text(pictures.svg("$ make dev\n  one <two> & three  12.5 ms\n\n  {id}", "title"))
    assert pictures.text_in(picture).splitlines() == ["$ make dev", "  one <two> & three  12.5 ms", "  {id}"]
    assert pictures.shape(pictures.text_in(picture)) == {"$ make dev", "one <two> & three # ms", "{id}"}


def test_the_checks_of_the_documentation_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](missing.md) [b](#two) [c](#one) `make no-such thing` prose: make nothing\n")
    assert broken_links(page) == ["missing.md", "#two"]
    assert named_targets(page.read_text()) == {"no-such", "thing"}
