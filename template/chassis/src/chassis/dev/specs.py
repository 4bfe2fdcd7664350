"""The interface of the service as files: specs/openapi.json, specs/asyncapi.json, and a schema for each sent message.

The files are made from the code and committed. The gate checks them together.
"""

import hashlib
import json
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chassis.discovery import has_module
from chassis.service import Service

FOLDER = Path("specs")
OPENAPI = FOLDER / "openapi.json"
ASYNCAPI = FOLDER / "asyncapi.json"
MESSAGES = FOLDER / "messages"
RETIRED = FOLDER / "retired.txt"
USES = FOLDER / "uses"
WRITTEN = "# Written by `fleet client`. Digests of specs/uses and of this code: "


def add_arguments(parser: ArgumentParser, _: Service) -> None:
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="fail if a file is stale, instead of writing it")
    instead.add_argument(
        "--against",
        metavar="COMMIT",
        help="fail if a message has changed since that commit in a way that breaks its consumers, or a saga has lost its function",
    )


def run(service: Service, _: None, options: Namespace) -> int:
    """Write, check or compare the files. Returns the exit status: 0 success, 1 stale or incompatible, 2 no baseline."""
    if options.against is not None:
        return _compare(service, options.against)
    return _check(service) if options.check else _write(service)


def documents(service: Service) -> dict[Path, str]:
    """Make the content of each file from the code. A service without messages has no AsyncAPI document."""
    from chassis.application import api

    made: dict[Path, dict[str, Any]] = {OPENAPI: api(service).openapi()}
    if service.messages:
        from chassis.messaging.specs import asyncapi
        from chassis.messaging.specs.schemas import described

        made[ASYNCAPI] = asyncapi.document(service)
        made |= {MESSAGES / f"{each.name}.json": each.schema() for each in described(service.messages) if each.ours}
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in made.items()}


def _write(service: Service) -> int:
    wanted = documents(service)
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for orphan in _orphans(wanted):
        orphan.unlink()
    return 0


def _check(service: Service) -> int:
    wanted = documents(service)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path} does not match the code: run `make specs` and commit the file.", file=sys.stderr)
    orphans = _orphans(wanted)
    for path in orphans:
        print(
            f"{path} describes a message that the code no longer has: run `make specs`, which removes the file.",
            file=sys.stderr,
        )
    unlike = list(unlike_uses(Path(str(service.package.__file__)).parent))
    print(*unlike, sep="\n", end="\n" if unlike else "", file=sys.stderr)
    return 1 if stale or orphans or unlike else 0


def unlike_uses(package: Path) -> Iterator[str]:
    """Yield a sentence for each module of neighbours/ that differs from the code that `fleet client` writes for specs/uses."""
    for file in sorted(USES.glob("*.json")):
        module = package / "neighbours" / f"{file.stem.replace('-', '_')}.py"
        code = module.read_text() if module.exists() else WRITTEN
        digests, _, body = code.partition(WRITTEN)[2].partition("\n")
        if WRITTEN in code and digests != f"{_digest(file.read_text())} {_digest(body)}":
            yield f"{module} does not have the code of {file}: run `fleet client {file.stem}`, and commit both files."


def _digest(text: str) -> str:
    """Return a digest that line breaks and indentation do not change."""
    return hashlib.sha256(re.sub(r"[\s,()]", "", text).encode()).hexdigest()[:16]


def _orphans(wanted: dict[Path, str]) -> list[Path]:
    found = [*FOLDER.glob(ASYNCAPI.name), *MESSAGES.glob("*.json")]
    return sorted(path for path in found if path not in wanted)


def _compare(service: Service, commit: str) -> int:
    from chassis.dev import committed_schemas

    try:
        base = committed_schemas.read(commit, messages=MESSAGES, asyncapi=ASYNCAPI, retired=RETIRED)
        retired = _retired(base.retired) | _retired(RETIRED.read_text() if RETIRED.exists() else "")
        found = [*_problems(service, base.schemas, retired), *_unfinished(service, base.sagas, retired)]
    except (committed_schemas.NoBaseline, ValueError) as error:
        print(f"Cannot compare the messages with {commit!r}: {error}", file=sys.stderr)
        return 2
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        what = f"{type(error).__name__} {error}"
        print(
            f"Cannot compare the messages with {commit!r}: a schema there is no JSON Schema ({what})", file=sys.stderr
        )
        return 2
    print(*found, sep="\n\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


def _problems(service: Service, base: dict[str, dict[str, Any]], retired: set[str]) -> list[str]:
    """Find the changes that break services that know the messages of `base`."""
    if has_module("chassis.messaging.part"):
        from chassis.messaging.specs import compatibility
        from chassis.messaging.specs.schemas import described

        return compatibility.problems(base, described(service.messages), retired)
    return [
        f"{name} is gone, because messaging is turned off. Once no service uses the message any more, retire it by a line in {RETIRED}: "
        f"`{name} <why nobody needs it>`."
        for name in sorted(base.keys() - retired)
    ]


def _unfinished(service: Service, base: dict[str, int], retired: set[str]) -> Iterator[str]:
    """Find the sagas of `base` that may still run in production, but whose function or version is gone from the code."""
    now = {} if service.messages.sagas is None else service.messages.sagas.versions
    for name, version in sorted(base.items()):
        if name not in now and name not in retired:
            yield (
                f"The saga {name} is gone, and sagas that have started may still wait. Bring the function back, and let nothing start it. "
                f"Once `sagas list --name {name}` shows no saga in production, retire it by a line in {RETIRED}: `{name} <why no saga is left>`."
            )
        elif now.get(name, version) < version:
            yield (
                f"The saga {name} has version {now[name]}, was {version}: workers would leave the sagas of version {version} alone. "
                "Raise the version, and keep its steps for the sagas that have started."
            )


def _retired(text: str) -> set[str]:
    """Read the names in a text that has a name and a reason on each line. `#` starts a comment."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        if len(line) == 1:
            raise ValueError(
                f"{RETIRED} has no reason for {line[0]}: write behind the name why no consumer needs the message"
            )
    return {name for name, _ in lines}
