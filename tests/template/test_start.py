"""A new service that cannot be made: all problems are listed before the first prompt, and no file is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
from copier.errors import UserMessageError

from tests.support.questions import questions

pytestmark = pytest.mark.usefixtures("quick_copier")

Start = Callable[..., str]


@pytest.fixture
def start(questionnaire: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Start:
    """Run `copier copy --defaults` as a person does, and return what it prints."""

    def start(folder: str = "billing", **options: Any) -> str:
        copier.run_copy(str(questionnaire), tmp_path / folder, defaults=True, settings=copier.Settings(), **options)
        return capsys.readouterr().err

    return start


@pytest.fixture
def refused(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Start:
    """Return the lines that explain why no service is made."""

    def refused(folder: str = "billing", **options: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserMessageError, match=r"^'no_service_is_made_see_above' is undefined$"):
            start(folder, **options)
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().err.partition("No file is written:\n\n")[2]

    return refused


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"servicename": "orders"}, "-d servicename: type 'service_name': no question has this name"),
        ({"Messaging-Style": "events"}, "-d Messaging-Style: type 'messaging_style': no question has this name"),
        ({"wibble": "1"}, "-d wibble: type one of service_name, description, domain, "),
        ({"service_name": "user"}, "-d service_name: type 'users': 'user' is reserved in PostgreSQL"),
        ({"ci": "jenkins"}, "-d ci: type one of github, gitlab, both: 'jenkins' is no choice"),
        (
            {"chassis_parts": "[traces, tracs]"},
            "-d chassis_parts: write a list, as in [traces, lists], of traces, shell,",
        ),
        ({"chassis_parts": "traces"}, "-d chassis_parts: write a list, as in [traces, lists], of traces, shell,"),
        ({"separate_team": True}, "-d separate_team: type one of yes, no, unknown: 'true' is no choice"),
        ({"owner": "a b"}, "-d owner: type 'a-b' or '@org/team': 'a b' is not the name of a team"),
        ({"domain": "A"}, "-d domain: type 'a': 'A' is not kebab-case"),
        ({"description": "no"}, "-d description: type 3 to 160 characters"),
        ({"platform_team": "a b"}, "-d platform_team: type 'a-b' or '@org/team'"),
        ({"chassis_index": "nowhere"}, "-d chassis_index: type an address such as https://"),
        ({"aggregates": "Invoice: {id: uuid}"}, "-d aggregates: leave out Invoice.id, or type 'external_id'"),
        ({"separate_team": "no", "limited_by_monolith": "no"}, "-d create_anyway: type 'yes', or stop: two of three"),
    ],
)
def test_an_answer_that_is_not_accepted_is_named_with_its_remedy(
    refused: Start, data: dict[str, Any], problem: str
) -> None:
    (line,) = refused(data=data).strip().splitlines()
    assert line.startswith(problem)


def test_all_problems_are_listed_at_once(refused: Start) -> None:
    assert len(refused("2fast", data={"ci": "jenkins", "wibble": "1"}).strip().splitlines()) == 3


def test_a_folder_whose_name_would_lose_a_character_does_not_name_the_service(refused: Start) -> None:
    for folder in ("2fast", "größe"):
        assert f"'{folder}' is not kebab-case" in refused(folder)


def test_a_file_of_the_platform_in_the_folder_is_named_before_a_file_is_written(
    refused: Start, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "billing/chassis").mkdir(parents=True)
    for name in ("Makefile", "chassis/README.md", "README.md", "notes.txt"):
        (tmp_path / "billing" / name).write_text("ours\n")
    assert refused().strip().splitlines() == [
        "Makefile exists already: remove it, or replace it by --overwrite",
        "    chassis/README.md exists already: remove it, or replace it by --overwrite",
    ]
    start(overwrite=True)
    assert (tmp_path / "billing/Makefile").read_text() == "first:\n"
    assert (tmp_path / "billing/README.md").read_text() == "ours\n"


def test_a_file_of_the_team_in_the_folder_is_named_and_stays(start: Start, tmp_path: Path) -> None:
    (tmp_path / "billing/docs").mkdir(parents=True)
    for name in ("README.md", "docs/runbook.md", "notes.txt"):
        (tmp_path / "billing" / name).write_text("ours\n")
    assert "These files belong to the team, and stay as they are: README.md, docs/runbook.md\n" in start()
    assert (tmp_path / "billing/README.md").read_text() == "ours\n"


def test_the_closing_message_shows_the_names_of_the_service(start: Start) -> None:
    closing = start("User_Profile").partition("User profile is in ")[2]
    names = [line.rpartition(" ") for line in closing.splitlines()[2:5]]
    assert [(label.strip(), name) for label, _, name in names] == [
        ("service", "user-profile"),
        ("Python package", "user_profile"),
        ("schema", "user_profile"),
    ]


def test_recorded_answers_start_a_second_service(start: Start) -> None:
    recorded = {"_commit": "v1.0.0", "_src_path": "x", "seeded": ["events"], "service_name": "billing"}
    assert "No file is written" not in start(data=recorded)


def test_the_list_of_questions_is_complete(questionnaire: Path, tmp_path: Path) -> None:
    environment = copier.run_copy(
        str(questionnaire), tmp_path / "billing", defaults=True, quiet=True, settings=copier.Settings()
    ).jinja_env
    conf = {"quiet": True, "overwrite": True}
    known = environment.get_template("questions/start.jinja").make_module({"_copier_conf": conf}).QUESTIONS
    asked = {name: question for name, question in questions().items() if question.get("when") is not False}
    assert known == {name: list(question.get("choices", {}).values()) for name, question in asked.items()}
