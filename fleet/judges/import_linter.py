"""Find imports that violate the layers, by import-linter, in the service's files. Nothing is installed."""

import glob
import json
import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fleet.errors import FleetError
from fleet.git.objects import Tree
from fleet.judges import tools
from fleet.judges.batch import compute_together
from fleet.service.service import Service
from fleet.template.answers import ANSWERS_FILE, Answers
from fleet.template.template import Template

CONTRACTS = ".importlinter"
LINTING = str(Path(__file__).with_name("import_linter_program.py"))

_CHAIN = re.compile(r"^- +\S.*(?:\n +\S.*)*", re.MULTILINE)
_LINK = re.compile(r"([\w.]+) -> ([\w.]+)")
_STEP = re.compile(r"^-\s+(?P<importer>[\w.]+) -> (?P<imported>[\w.]+) \(l\.(?P<line>\d+)", re.MULTILINE)


class Import(NamedTuple):
    """The first import of a chain that violates a contract."""

    importer: str
    imported: str
    line: int


def find_violations(service: Service) -> list[Import]:
    """Check the contracts that the template renders, or that a waiver allows. Raises FleetError if import-linter fails."""
    return [Import(*entry) for entry in service.compute_once(_tool(), _inputs(service), _lint_one)]


def prepare(services: list[Service]) -> None:
    """Compute the answers of `find_violations` for all services at once."""
    compute_together([service for service in services if CONTRACTS in service.tree], _tool(), _inputs, _lint_each)


@cache
def _tool() -> str:
    return f"layers 6 import-linter {version('import-linter')} grimp {version('grimp')}"


def _inputs(service: Service) -> tuple[str, ...]:
    # Most services have the unchanged chassis of the recorded release, or use a published chassis. For these services the
    # answers file takes the place of the chassis, because it names the release: the sixty files of the chassis need not be
    # written for each service.
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


def _lint_one(folder: Path) -> list[Import]:
    return _lint([folder])[0]


def _lint_each(folder: Path) -> dict[str, list[Import]]:
    folders = list(folder.iterdir())
    return {one.name: found for one, found in zip(folders, _lint(folders), strict=True)}


@cache
def _released_chassis(source: str, version: str) -> Path:
    return Template(source).at(version).folder / "template/chassis"


def _lint(folders: list[Path]) -> list[list[Import]]:
    for folder in folders:
        if (folder / ANSWERS_FILE).exists():
            _complete(folder, Answers.parse((folder / ANSWERS_FILE).read_bytes()))
    # Many columns, because import-linter folds longer lines.
    done = tools.run([sys.executable, "-I", LINTING, *map(str, folders)], cwd=folders[0], COLUMNS="1000")
    try:
        answers = json.loads(done.stdout)
    except ValueError:
        raise FleetError(f"import-linter could not be run: {done.stderr.strip()[-500:]}") from None
    return [_parse(status, printed) for status, printed in answers]


def _complete(folder: Path, answers: Answers) -> None:
    """Add the template's contracts and chassis to a folder that lacks the contracts and the chassis of the service."""
    if not (folder / CONTRACTS).exists():
        Template(answers.source).at(answers.version).rendered(answers, None).write(CONTRACTS, folder)
    if not (folder / "chassis").exists():
        (folder / "chassis").symlink_to(_released_chassis(answers.source, answers.version))


def _parse(status: int, printed: str) -> list[Import]:
    chains = _CHAIN.findall(printed)
    links = [[*dict.fromkeys(_LINK.findall(chain))] for chain in chains]
    wrong = {one[0] for one in links if len(one) == 1}
    # A longer chain is left out if one of its imports is reported already: the chain adds nothing, and begins at an import that
    # may be right.
    kept = [chain for chain, each in zip(chains, links, strict=True) if len(each) == 1 or wrong.isdisjoint(each)]
    steps = (one for chain in kept for one in _STEP.finditer(chain))
    found = {Import(one["importer"], one["imported"], int(one["line"])) for one in steps}
    if bool(found) is (status == 0):
        raise FleetError(f"import-linter could not judge: {printed.strip()[-500:]}")
    return sorted(found)
