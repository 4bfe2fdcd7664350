"""The skill for coding tools holds the how-tos of a service, and costs a prompt one description."""

import re
from pathlib import Path

import yaml

from docs import skill
from tests.support.services import Render

FOLDER = Path("chassis/src/chassis/.agents/skills/slipway")


def test_the_skill_is_fresh() -> None:
    assert skill.written() == skill.expected(), "run `make docs`"


def test_the_skill_keeps_the_rules_of_agentskills_io_and_its_description_is_short() -> None:
    _, front, body = (skill.FOLDER / "SKILL.md").read_text().split("---\n", 2)
    described = yaml.safe_load(front)
    assert set(described) == {"name", "description"}
    assert described["name"] == skill.FOLDER.name
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", described["name"])
    assert len(described["description"]) < 300, "a tool sends the description in each prompt"
    assert len(body.splitlines()) < 200


def test_a_service_has_each_page_for_a_service_as_a_file_of_its_own(render: Render) -> None:
    service = render()
    linked = re.findall(r"\]\((references/\S+)\)", (service / FOLDER / "SKILL.md").read_text())
    assert "references/add-a-field.md" in linked
    assert "references/release-the-template.md" not in linked
    for page in linked:
        copied = service / FOLDER / page
        assert not copied.is_symlink()
        assert copied.read_text() == (skill.HOW_TO / copied.name).read_text()
