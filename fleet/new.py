"""`fleet new`: run `copier copy`, and show the boundary review before any file is written."""

import shutil
from pathlib import Path
from typing import Any

import copier._main
import questionary
from colorama import colorama_text
from copier._main import Worker
from copier._settings import SettingsModel
from copier._vcs import get_repo
from copier.errors import CopierError
from plumbum import ProcessExecutionError
from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.errors import FleetError
from fleet.template.installation import repository
from fleet.template.rendering import refuse_unknown
from fleet.template.trust import is_path

# The questions of the review, which copier.yml words.
BOUNDARY = ("limited_by_monolith", "separate_team", "ready_for_consistency")
VERDICTS = {
    "service": "At least two of the three answers speak for a separate service.",
    "undecided": "Undecided. Start with a module of the monolith: the module can become a service once two of the three answers "
    "are yes, and a service seldom becomes a module again.",
    "monolith": "At least two of the three answers speak for a monolith, as a module with a clear border.",
}
RECORDED = "The answers will be in docs/decisions/0001."

WANTED = "--template (or FLEET_TEMPLATE) takes a folder with a copier.yml, or the git URL of one"


def new(destination: Path, template: str, data: dict[str, Any], *, defaults: bool) -> None:
    """Ask the questions that `data` leaves open (or take defaults), show the review, and write. Raises FleetError."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise FleetError(f"{destination} exists already: choose another name, or remove it")
    answers = {"service_name": destination.resolve().name, **data}
    settings = SettingsModel.from_file()
    template = _resolve(template)
    was_there = destination.exists()
    try:
        # Copier prints colours into files and pipes as well. colorama removes them if there is no terminal.
        with (
            colorama_text(),
            _Reviewed(
                src_path=template,
                dst_path=destination,
                data=answers,
                defaults=defaults,
                settings=settings,
                # The folder is empty, so there is nothing to overwrite. The option makes the template leave the check of answers
                # to fleet (questions/start.jinja).
                overwrite=True,
            ) as worker,
        ):
            worker.run_copy()
    except KeyboardInterrupt:
        if not was_there:
            shutil.rmtree(destination, ignore_errors=True)
        raise FleetError("stopped: nothing was written") from None
    except ProcessExecutionError as error:
        raise FleetError(f"the template {template} cannot be fetched: {error.stderr.strip()}\n{WANTED}") from None
    except (CopierError, ValueError) as error:
        raise FleetError(str(error)) from None


def _resolve(template: str) -> str:
    """Turn a template into an address that can be recorded. Raises FleetError."""
    if Path(template).exists():
        template = str(Path(template).resolve())  # a relative path would depend on the current folder
    elif not get_repo(template) and not is_path(template):
        template = f"git+{template}"  # Copier would take an alias in ~/.ssh/config for a path
    if not get_repo(template) and not Path(template).is_dir():
        raise FleetError(f"{template} is not a template: {WANTED}")
    return template


def template_address() -> str:
    """Return the address of the template from which fleet was installed, for Copier.

    Raises FleetError if it is not known.
    """
    address = repository()
    return address if Path(address).exists() or get_repo(address) else f"git+{address}"


class _Reviewed(Worker):
    def _ask(self) -> None:
        if not self.template.questions_data:
            raise FleetError(f"{self.src_path} is not a template: {WANTED}")
        refuse_unknown(self, self.data, str(self.template.version or "its only version"))
        super()._ask()
        answers = self.answers.combined
        if not all(name in answers and name in self.template.questions_data for name in (*BOUNDARY, "verdict")):
            return  # the template has other questions, so there is nothing to review
        _show(self.template.questions_data, answers)
        # With the verdict monolith the questionnaire has asked for a confirmation already.
        is_asked = not self.defaults and answers["verdict"] != "monolith"
        if is_asked and not questionary.confirm(f"Write it to {self.dst_path}?").unsafe_ask():
            raise KeyboardInterrupt


_prompt = copier._main.unsafe_prompt


def _prompt_without_prefix(structures: list[dict[str, Any]], answers: dict[str, Any]) -> dict[str, Any]:
    """Prompt as Copier does, but leave out the first 40 characters of a refusal, which Copier adds: a prompt has one line."""
    return _prompt([_without_prefix(structure) for structure in structures], answers)


def _without_prefix(structure: dict[str, Any]) -> dict[str, Any]:
    validate = structure.get("validate")
    if validate is None:
        return structure

    def shorter(answer: str) -> str | bool:
        result = validate(answer)
        return result if result is True else result.removeprefix(_PREFIX.format(structure["name"]))

    return structure | {"validate": shorter}


_PREFIX = "Validation error for question '{}': "

copier._main.unsafe_prompt = _prompt_without_prefix  # ty: ignore[invalid-assignment]


def _show(questions: dict[str, Any], answers: Any) -> None:
    console = output.console(stderr=True)
    table = Table(box=None, show_header=False, pad_edge=False, title="Should this be a service?", title_justify="left")
    for name in BOUNDARY:
        labels = {value: label for label, value in questions[name]["choices"].items()}
        table.add_row(Text(questions[name]["help"].splitlines()[0]), Text(labels[answers[name]], style="bold"))
    console.print()
    console.print(table)
    console.print(Text(f"\n{VERDICTS[answers['verdict']]} {RECORDED}\n"))
