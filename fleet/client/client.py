"""`fleet client`: write specs/uses/NAME.json and the module of a neighbour, or check that the two agree."""

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fleet.cache import write_all
from fleet.client import code, uses
from fleet.client.sources import difference, nearest, own_answers
from fleet.client.uses import Selection
from fleet.errors import FleetError
from fleet.processes.resource_limits import limit_resources
from fleet.service.openapi import Document, Node

USES = Path("specs/uses")


@dataclass(frozen=True)
class Options:
    """`source` replaces the neighbour's entry in `config`. `force` replaces what the team has changed."""

    operations: tuple[str, ...] = ()
    source: str | None = None
    config: Path = Path("fleet.toml")
    force: bool = False


@dataclass(frozen=True)
class Report:
    """The lines to print, and the operations that were refused."""

    lines: list[str]
    refused: dict[str, str]


def write_client(service: Path, name: str, options: Options) -> Report:
    """Write the two files of a neighbour. Raises FleetError, and then writes nothing."""
    module, file = _module(service, name), service / USES / f"{name}.json"
    before = _read(file) if file.exists() else None
    selection, lines = _selected(name, before, options)
    content = uses.pruned(selection.content)
    if not any(content["paths"].values()):
        reasons = "".join(f"\n{one}: {reason}" for one, reason in selection.refused.items())
        raise FleetError(f"no operation of {name} can be called, so nothing was written{reasons}")
    new = code.write(name, content, service / "ruff.toml", has_policy=_has_policy(service))
    old = _code(module) if module.exists() else None
    if old is not None and not code.is_untouched(old) and not _is_same(old, new) and not options.force:
        shown = difference(str(module), old, new)
        raise FleetError(
            f"{shown}{module} has changes of the team, so nothing was written: use --force to replace them"
        )
    package = module.parent / "__init__.py"
    texts = {} if package.exists() else {package: '"""Other services that this service calls."""\n'}
    write_all({**texts, file: _text(content), module: new})
    lines.append(f"{file.relative_to(service)} and {module.relative_to(service)} are written")
    return Report(lines, selection.refused)


def check_clients(service: Path, names: tuple[str, ...]) -> list[str]:
    """Return a sentence for each neighbour whose generated module is missing, or differs from specs/uses/NAME.json.

    Raises FleetError.
    """
    found = []
    for name in names or sorted(file.stem for file in (service / USES).glob("*.json")):
        module, content = _module(service, name), uses.pruned(_read(service / USES / f"{name}.json"))
        shown, remedy = module.relative_to(service), f"run `fleet client {name}`"
        write = partial(code.write, name, content, service / "ruff.toml")
        new = write(has_policy=_has_policy(service))
        if not module.exists():
            found.append(f"{shown} is missing: {remedy}")
        # Code without a policy stays valid when the service turns on the part `neighbours`, which adds a policy.
        elif not _is_same(_code(module), new) and not _is_same(_code(module), write(has_policy=False)):
            shown_difference = difference(str(shown), _code(module), new)
            found.append(f"{shown_difference}{shown} does not have the code of {USES / name}.json: {remedy}")
    return found


def _selected(name: str, before: Node | None, options: Options) -> tuple[Selection, list[str]]:
    """Return the operations to write, and how the neighbour differs from the uses of this service. Raises FleetError."""
    if before is not None and not (options.operations or options.source or options.force):
        return Selection(before), []
    document = uses.read_source(name, options.source, options.config)
    with limit_resources(f"the document of {name}"):
        return _compared(name, document, before, options)


def _compared(name: str, document: Document, before: Node | None, options: Options) -> tuple[Selection, list[str]]:
    known, used = uses.known_operations(document), list(uses.known_operations(Document(before))) if before else []
    wanted = [*options.operations, *(used if options.force else ())]
    if not wanted and before is None:
        offered = nearest("", known)
        raise FleetError(f"name the operations of {name} that this service calls{offered}")
    judge = partial(code.compose, name)
    if before is None or options.force:
        return uses.select(document, wanted, None, judge), []
    lines = [f"{name} has no operation {one} any more: remove it from {name}.json" for one in used if one not in known]
    now = uses.pruned(uses.select(document, [one for one in used if one in known], None, lambda _: None).content)
    if changes := difference(f"{name}.json", _text(before), _text(now)):
        lines.append(f"{changes}{name}.json differs from {name} as above, and was kept: use --force to replace it")
    return uses.select(document, wanted, before, judge), lines


def _is_same(old: str, new: str) -> bool:
    """Compare the code and the digest of the uses. A module that imports httpx, as older versions wrote it, stays valid."""
    return _meaning(old) == _meaning(new)


def _meaning(text: str) -> str:
    return code.digest(re.sub(r"\bhttpx\b", "httpx2", re.sub(rf"({code.MARK}\w+) \w+", r"\1", text)))


def _has_policy(service: Path) -> bool:
    """Return whether the calls of the service have a policy, by the part `neighbours` of its chassis."""
    return "neighbours" in (own_answers(service, "fleet client").get("chassis_parts") or ())


def _module(service: Path, name: str) -> Path:
    """Return the path of a neighbour's module. Raises FleetError outside of a service."""
    package = own_answers(service, "fleet client")["package"]
    return service / "src" / package / "neighbours" / f"{uses.module_of(name)}.py"


def _read(file: Path) -> Node:
    if not file.is_file():
        raise FleetError(f"{file} does not exist: write it by `fleet client {file.stem} OPERATION`")
    content = uses.parse(str(file), file.read_bytes()).content
    content.setdefault("paths", {})
    if not isinstance(components := content.setdefault("components", {}), dict):
        raise FleetError(f"{file}: the components are no object: restore the file from git")
    components.setdefault("schemas", {})
    return content


def _code(module: Path) -> str:
    """Read a module, in which somebody may have saved bytes that are not UTF-8."""
    return module.read_text(errors="replace")


def _text(content: Node) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
