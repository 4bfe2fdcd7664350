"""`fleet listen`: write the contract, the handler, the use case, the agreed body and the test of a message of another service."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.cache import write_all
from fleet.client.formatting import formatted
from fleet.client.sources import Source, difference, find, own_answers
from fleet.client.uses import MALFORMED, Inexpressible
from fleet.errors import FleetError
from fleet.listen import contract, messages, modules
from fleet.listen.example import ABSENT, example
from fleet.listen.messages import NAME, Message
from fleet.listen.modules import Names
from fleet.processes.resource_limits import limit_resources

SEND = 'send it, as the page "Send a job" describes'


@dataclass(frozen=True)
class Options:
    """`fields` are the wanted fields. `source` replaces the sender's entry in `config`. `force` replaces changed files."""

    fields: tuple[str, ...] = ()
    source: str | None = None
    config: Path = Path("fleet.toml")
    force: bool = False


def listen(service: Path, name: str, options: Options) -> list[str]:
    """Write the files of a message, and return the lines to print. Raises FleetError, and then writes nothing."""
    answers = own_answers(service, "fleet listen")
    names = _names(answers, name)
    source = find(names.sender, options.source, options.config)
    with limit_resources(f"the document of {source.shown}"):
        try:
            files = _files(service, names, source, options)
        except (Inexpressible, *MALFORMED) as reason:
            is_known = isinstance(reason, Inexpressible)
            raise FleetError(
                f"{name} was refused, and nothing was written: {reason if is_known else f'it is malformed: {reason!r}'}"
            ) from None
    changed = {path: text for path, text in files.items() if _text(service / path) != text}
    shown = [difference(path, _text(service / path), files[path]) for path in changed if (service / path).exists()]
    if shown and not options.force:
        raise FleetError(
            f"{''.join(shown)}these files are here already and differ, so nothing was written: use --force to replace them"
        )
    write_all({service / path: text for path, text in changed.items()})
    if not changed:
        return [f"{names.module} has the contract of {name} already"]
    return [
        *shown,
        *(f"{path} is written" for path in changed),
        "now write the use case and its test, then `make specs check`",
    ]


def _names(answers: dict[str, Any], name: str) -> Names:
    """Return the names of files and functions. Raises FleetError for a message that this service cannot listen to."""
    own = str(answers["service_name"])
    if (found := NAME.fullmatch(name)) is None:
        raise FleetError(
            f"{name!r} is not the name of a message: write <service>.<name>.v<N>, as in billing.invoice-issued.v1"
        )
    if answers.get("messaging_style") == "sync":
        raise FleetError(
            f"{own} has no messages: turn them on by `fleet update -d messaging_style=events`, and run `fleet listen` again"
        )
    return Names(
        own,
        str(answers["package"]),
        name,
        found["service"],
        found["queue"] or "",
        found["words"],
        int(found["version"]),
    )


def _files(service: Path, names: Names, source: Source, options: Options) -> dict[str, str]:
    """Return the texts of the files by their paths. Raises FleetError and Inexpressible."""
    document, message = messages.read(source, names.message)
    _refuse_other_direction(names, message)
    _refuse_second_line(service, names)
    before = _text(service / names.module)
    known = modules.fields(before, names.contract)
    body = contract.body(document, names.message, message.payload, options.fields or known)
    code = contract.write(names.contract, body, names.of(message.kind)["command"])
    fresh = modules.module(names, message.kind, code)
    config = service / "ruff.toml"
    texts = {names.module: modules.replaced(before, fresh, names.contract) if known else fresh}
    if not known:  # after the first run, these files belong to the team
        texts[names.usecase_file] = modules.usecase(names, message.kind, code)
        texts[names.test] = modules.test(names)
    texts = {path: formatted(text, config, path, names.package) for path, text in texts.items()}
    agreed = _text(service / names.golden)
    given = next(
        (one for one in (_json(agreed), _agreed(source, names.golden), message.example) if one is not None), ABSENT
    )
    wanted = example(body.schema, body, given)
    # A file with the same content stays as the team has formatted it.
    same = agreed and wanted == _json(agreed)
    return {**texts, names.golden: agreed if same else json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"}


def _refuse_other_direction(names: Names, message: Message) -> None:
    if message.kind == "job" and names.sender != names.own:
        raise FleetError(f"{names.message} is a job that {names.sender} processes, and nobody listens to a job: {SEND}")
    if message.kind == "event" and names.sender == names.own:
        raise FleetError(
            f"{names.message} is an event of {names.own} itself: import its contract in a line of INCOMING"
        )
    if not message.sent:
        raise FleetError(f"the service does not send {names.message}: name the source of its sender")


def _refuse_second_line(service: Path, names: Names) -> None:
    """Refuse a message that another module handles already: the chassis takes one line for each message."""
    for file in sorted((service / names.module).parent.rglob("*.py")):
        if file != service / names.module and re.search(rf'["\']{re.escape(names.message)}["\']', _text(file)):
            raise FleetError(f"{file.relative_to(service)} names {names.message} already: change its contract by hand")


def _agreed(source: Source, path: str) -> Any:
    """Read the sender's own example; None if it has none that can be read."""
    return _json((source.read(path) or b"").decode(errors="replace"))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(file: Path) -> str:
    """Read a file, in which somebody may have saved bytes that are not UTF-8; empty if it is missing."""
    return file.read_text(errors="replace") if file.exists() else ""
