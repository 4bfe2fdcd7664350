"""Imports that go against the layers, as import-linter finds them in the service's files. Nothing is installed."""

import glob
import json
import re
import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fleet.errors import FleetError
from fleet.git.objects import Tree
from fleet.judges import tools
from fleet.judges.together import remember_together
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.template import Template

CONTRACTS = ".importlinter"
LINTING = str(Path(__file__).with_name("import_linter_program.py"))

_STEP = re.compile(r"^-\s+(?P<importer>[\w.]+) -> (?P<imported>[\w.]+) \(l\.(?P<line>\d+)", re.MULTILINE)


class Import(NamedTuple):
    """Where a chain of imports begins that breaks a contract."""

    importer: str
    imported: str
    line: int


def broken(service: Service) -> list[Import]:
    """By the contracts that the template renders, or those of a waiver. Raises FleetError if they cannot be checked."""
    return [Import(*entry) for entry in service.remembered(_judge(), _inputs(service), _broken)]


def prepare(services: list[Service]) -> None:
    """Find out what `broken` will be asked, at once for all of them."""
    remember_together(
        [service for service in services if CONTRACTS in service.tree], _judge(), _inputs, _broken_of_each
    )


def _judge() -> str:
    return f"layers 5 import-linter {version('import-linter')} grimp {version('grimp')}"


def _inputs(service: Service) -> tuple[str, ...]:
    # The chassis of most, and of those that have none of their own, is that of the recorded release, which their answers
    # name: sixty files that need not be written for each.
    ours, released = (_chassis(tree) for tree in (service.tree, service.expected.platform))
    own = service.tree[CONTRACTS] == service.expected.platform.get(CONTRACTS) or service.is_waived(CONTRACTS)
    inputs = {
        f"src/{glob.escape(service.package)}/*.py",
        "chassis/src/*.py" if ours != released else ANSWERS_FILE,
        CONTRACTS if own else ANSWERS_FILE,
    }
    return tuple(sorted(inputs))


def _chassis(tree: Tree) -> Tree:
    return {path: entry for path, entry in tree.items() if path.startswith("chassis/src/")}


def _broken(folder: Path) -> list[Import]:
    return _linted([folder])[0]


def _broken_of_each(folder: Path) -> dict[str, list[Import]]:
    folders = list(folder.iterdir())
    return {one.name: found for one, found in zip(folders, _linted(folders), strict=True)}


@cache
def _released(source: str, version: str) -> Path:
    return Template(source).at(version).folder / "template/chassis"


def _linted(folders: list[Path]) -> list[list[Import]]:
    for folder in folders:
        if (folder / ANSWERS_FILE).exists():
            _complete(folder, Answers.parse((folder / ANSWERS_FILE).read_bytes()))
    # Wide, because it would break what is longer than a line.
    done = tools.run([sys.executable, "-I", LINTING, *map(str, folders)], cwd=folders[0], COLUMNS="1000")
    try:
        answers = json.loads(done.stdout)
    except ValueError:
        raise FleetError(f"import-linter could not be run: {done.stderr.strip()[-500:]}") from None
    return [_found(status, said) for status, said in answers]


def _complete(folder: Path, answers: Answers) -> None:
    """Add what the template says, where the service's own does not count: the contracts, the chassis."""
    if not (folder / CONTRACTS).exists():
        with tempfile.TemporaryDirectory(prefix="fleet-") as rendered:
            Template(answers.source).at(answers.version).render(answers, Path(rendered))
            shutil.copyfile(Path(rendered) / CONTRACTS, folder / CONTRACTS)
    if not (folder / "chassis").exists():
        (folder / "chassis").symlink_to(_released(answers.source, answers.version))


def _found(status: int, said: str) -> list[Import]:
    found = {Import(one["importer"], one["imported"], int(one["line"])) for one in _STEP.finditer(said)}
    if bool(found) is (status == 0):
        raise FleetError(f"import-linter could not judge: {said.strip()[-500:]}")
    return sorted(found)
