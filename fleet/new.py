"""`fleet new`: what `copier copy` does, with a look at the boundary review before anything is written."""

import shutil
from pathlib import Path
from typing import Any

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
from fleet.template.installed import repository
from fleet.template.rendering import refuse_unknown
from fleet.template.trust import is_path

# Of copier.yml. The review is theirs to word; here is only what follows from it.
BOUNDARY = ("limited_by_monolith", "separate_team", "ready_for_consistency")
VERDICTS = {
    "service": "At least two of the three say so: a service of its own.",
    "undecided": "Undecided. Start with a module of the monolith: it can become a service once two of the three are yes, "
    "and a service seldom becomes a module again.",
    "monolith": "At least two of the three say that it belongs in a monolith, as a module with a clear border.",
}
RECORDED = "The answers will be in docs/decisions/0001."

WANTED = "--template (or FLEET_TEMPLATE) takes a folder with a copier.yml, or the git URL of one"


def new(destination: Path, template: str, data: dict[str, Any], *, defaults: bool) -> None:
    """Ask what `data` leaves open (take the defaults with `defaults`), show the review, and write. Raises FleetError."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise FleetError(f"{destination} exists already: choose another name, or remove it")
    answers = {"service_name": destination.resolve().name, **data}
    settings = SettingsModel.from_file()
    if Path(template).exists():
        template = str(
            Path(template).resolve()
        )  # it is recorded, and a relative path means another folder from each place
    if not Path(template).exists() and not get_repo(template) and not is_path(template):
        template = f"git+{template}"  # an alias of ~/.ssh/config, which Copier would take for a path
    if not get_repo(template) and not Path(template).is_dir():
        raise FleetError(f"{template} is no template: {WANTED}")
    was_there = destination.exists()
    try:
        # Copier prints colours into files and pipes as well: colorama takes them out where no terminal is.
        with (
            colorama_text(),
            _Reviewed(
                src_path=template, dst_path=destination, data=answers, defaults=defaults, settings=settings
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


def template_address() -> str:
    """The template's address as Copier takes it: where fleet was installed from. Raises FleetError if that is not known."""
    address = repository()
    return address if Path(address).exists() or get_repo(address) else f"git+{address}"


class _Reviewed(Worker):
    def _ask(self) -> None:
        if not self.template.questions_data:
            raise FleetError(f"{self.src_path} is no template: {WANTED}")
        refuse_unknown(self, self.data, str(self.template.version or "its only version"))
        super()._ask()
        answers = self.answers.combined
        if not all(name in answers and name in self.template.questions_data for name in (*BOUNDARY, "verdict")):
            return  # a template that asks other things
        _show(self.template.questions_data, answers)
        # Whoever has typed that it is to be created anyway has been asked.
        is_asked = not self.defaults and answers["verdict"] != "monolith"
        if is_asked and not questionary.confirm(f"Write it to {self.dst_path}?").unsafe_ask():
            raise KeyboardInterrupt


def _show(questions: dict[str, Any], answers: Any) -> None:
    console = output.console(stderr=True)
    table = Table(box=None, show_header=False, pad_edge=False, title="Should this be a service?", title_justify="left")
    for name in BOUNDARY:
        labels = {value: label for label, value in questions[name]["choices"].items()}
        table.add_row(Text(questions[name]["help"].splitlines()[0]), Text(labels[answers[name]], style="bold"))
    console.print()
    console.print(table)
    console.print(Text(f"\n{VERDICTS[answers['verdict']]} {RECORDED}\n"))
