"""A reader who follows a how-to of docs/how-to: put each code block of the page into the service, in order.

This reader also adds the imports, as an editor would.
"""

import ast
import json
import re
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import kubernetes_validate
import yaml

from docs import site
from tests.support.paths import ROOT

PAGES = ROOT / "docs" / "how-to"
PACKAGE = Path("src/billing")

# The imports of names from the standard library and other libraries that the pages use.
IMPORTS = {
    **dict.fromkeys(("UTC", "date", "datetime", "timedelta"), "datetime"),
    **dict.fromkeys(("Annotated", "Any", "Literal"), "typing"),
    **dict.fromkeys(("parse_qs", "urlsplit"), "urllib.parse"),
    **dict.fromkeys(("AsyncGenerator", "Mapping"), "collections.abc"),
    **dict.fromkeys(("APIRouter", "Depends", "FastAPI", "Header", "Query", "Request"), "fastapi"),
    "Client": "chassis.dev.issuer",
    **dict.fromkeys(("Neighbour", "neighbour"), "chassis.neighbours.testing"),
    **dict.fromkeys(("AfterValidator", "Field", "HttpUrl", "SecretStr", "computed_field"), "pydantic"),
    **dict.fromkeys(("ASGITransport", "AsyncClient"), "httpx2"),
    "CORSMiddleware": "fastapi.middleware.cors",
    "Config": "botocore.config",
    "Database": "chassis.database",  # `chassis.deadline` has a class of this name too
    "StreamingResponse": "fastapi.responses",
    "SkipJsonSchema": "pydantic.json_schema",
    **dict.fromkeys(("JSONB", "TSVECTOR", "insert"), "sqlalchemy.dialects.postgresql"),
    "to_jsonable_python": "pydantic_core",
    "to_process": "anyio",
    "capture_logs": "structlog.testing",
    "Money": "chassis.money",
    "Path": "pathlib",
    "UUID": "uuid",
    "dataclass": "dataclasses",
    "count": "itertools",
    "partial": "functools",
    **dict.fromkeys(("nullcontext", "suppress"), "contextlib"),
    "SagaPlayer": "chassis.sagas.testing",
    "Settings": "billing.settings",
    "fields": "chassis",
    "invoice_mails": "billing.messaging",
    "invoices as usecases": "billing.usecases",
}
MODULES = {"asyncio", "boto3", "hashlib", "httpx2", "json", "pytest", "re", "structlog"}

Step = Callable[[Path, str], object]


def blocks(page: str) -> list[str]:
    """Return the texts of the page's code blocks. A block in a list is indented."""
    found = re.finditer(r"^( *)```\w+\n(.*?)^ *```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block[2]) if block[1] else block[2] for block in found]


def follow(service: Path, page: str, *steps: Step) -> None:
    """Apply one step to each block of the page, then add the imports and format."""
    found = blocks(page)
    assert len(found) == len(steps), f"{page} has {len(found)} blocks, and there are steps for {len(steps)}"
    for step, text in zip(steps, found, strict=True):
        step(service, text)
    import_missing(service)
    # Do what `make format` does, in less time for each page.
    for command in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([service / ".venv/bin/ruff", *command, "."], cwd=service, check=command[0] == "format")


# --- steps ------------------------------------------------------------------------------------------------------------


def shown(service: Path, text: str) -> None:
    """Skip a block that is only for reading: the output of a command, or code of another service."""


def new(path: str) -> Step:
    """Make a step that writes a new file, or the start of a file."""

    def step(service: Path, text: str) -> None:
        assert not (service / path).exists(), f"{path} is there already"
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        (service / path).write_text(text)

    return step


def add(path: str, *, above: str = "") -> Step:
    """Make a step that adds definitions to a module: in place of the same names, `above` a name, or at the end."""

    def step(service: Path, text: str) -> None:
        file = service / path
        for name, definition in _definitions(text):
            before = file.read_text()
            known = dict(_definitions(before))
            if name in known:
                file.write_text(before.replace(known[name], definition))
            elif above:
                file.write_text(before.replace(known[above], f"{definition}\n\n\n{known[above]}"))
            else:
                file.write_text(f"{before}\n\n{definition}\n")

    return step


def into(path: str, owner: str) -> Step:
    """Make a step that adds a method to a class: in place of the method of the same name, or at the end."""

    def step(service: Path, text: str) -> None:
        file = service / path
        before = file.read_text()
        [body] = [source for name, source in _definitions(before) if name == owner]
        [name] = re.findall(r"^    (?:async )?def (\w+)", text, re.MULTILINE)[:1] or [""]
        old = re.search(rf"^    (?:async )?def {name}\(.*?(?=^    \S|\Z)", f"{body}\n", re.MULTILINE | re.DOTALL)
        text = text.rstrip()
        changed = body.replace(old[0].rstrip(), text) if name and old else f"{body}\n\n{text}"
        file.write_text(before.replace(body, changed))

    return step


def instead_of(path: str, old: str) -> Step:
    """Make a step that replaces these lines at their place."""
    return lambda service, text: edit(path, old, text)(service, "")


def listed(path: str) -> Step:
    """Make a step that adds the missing items to the list at the end of the module."""

    def step(service: Path, text: str) -> None:
        [given] = [node.value for node in ast.parse(text).body if isinstance(node, ast.Assign)]
        assert isinstance(given, ast.List)
        for line in [ast.get_source_segment(text, element) for element in given.elts]:
            if line not in (service / path).read_text():
                edit(path, "\n]\n", f"\n    {line},\n]\n")(service, "")

    return step


def edit(path: str, old: str, new: str) -> Step:
    """Make a step for an edit that the page describes in words."""

    def step(service: Path, _: str) -> None:
        before = (service / path).read_text()
        assert before.count(old) == 1, f"{path} has {old!r} {before.count(old)} times"
        (service / path).write_text(before.replace(old, new))

    return step


def appended(*paths: str) -> Step:
    """Make a step that appends the block to each of these files."""

    def step(service: Path, text: str) -> None:
        for path in paths:
            (service / path).write_text((service / path).read_text().rstrip("\n") + f"\n{text}")

    return step


def typed(service: Path, text: str) -> None:
    """Run the commands of the block in the service's folder."""
    import_missing(service)
    done = subprocess.run(["bash", "-ec", text], cwd=service, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def written(name: str) -> Step:
    """Make a step that compares the block with the `upgrade` of a migration that `make migration` has written."""

    def step(service: Path, text: str) -> None:
        [file] = (service / PACKAGE / "migrations/versions").glob(name)
        lines = file.read_text().splitlines(keepends=True)
        code = "".join(line for line in lines if not line.lstrip().startswith("#"))
        assert dict(_definitions(code))["upgrade"] == dict(_definitions(text))["upgrade"]

    return step


def valid_for_kubernetes(service: Path, text: str) -> None:
    """Check the manifests of the block."""
    for manifest in yaml.safe_load_all(text):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def both(*steps: Step) -> Step:
    """Make one step of several, for a block and the words before or after it."""

    def step(service: Path, text: str) -> None:
        for each in steps:
            each(service, text)

    return step


# --- imports ----------------------------------------------------------------------------------------------------------


def import_missing(service: Path) -> None:
    """Import the names that are used and not defined, from the service, the chassis or a library."""
    missing = _missing(service)
    known = _known(service) if missing else {}
    for file, name in sorted(missing):
        # Ruff takes the texts of an unknown Literal[…] for names, so import Literal first.
        if name not in known:
            continue
        text = Path(file).read_text()
        end = ast.parse(text).body[0].end_lineno if text.startswith('"""') else 0
        lines = text.splitlines(keepends=True)
        Path(file).write_text("".join([*lines[:end], f"\n{known[name]}\n", *lines[end:]]))
    if missing:
        assert not (rest := _missing(service)), f"nothing exports {rest}"


def _missing(service: Path) -> set[tuple[str, str]]:
    """Return each file with the names that it uses and does not define."""
    options = ["--select", "F821", "--output-format", "json", "--exit-zero", "--no-cache"]
    done = subprocess.run(
        [service / ".venv/bin/ruff", "check", *options, "."], cwd=service, capture_output=True, text=True, check=True
    )
    return {(one["filename"], re.findall("`(.+?)`", one["message"])[0]) for one in json.loads(done.stdout)}


def _known(service: Path) -> dict[str, str]:
    """Return the import statement of each name that can be imported."""
    known = {name: f"import {name}" for name in MODULES} | {"sa": "import sqlalchemy as sa"}
    found: list[tuple[str, Path]] = []
    for module in site.public_modules():
        file = site.file_of(module, service / "chassis/src/chassis")
        found += [(f"chassis.{module}", file)] if file.is_file() else []  # the answers leave some modules out
    found += [(f"builders.{name}", service / f"tests/builders/{name}.py") for name in ("accounts", "invoices")]
    for layer in ("messaging", "sagas", "usecases", "neighbours", "persistence", "domain"):
        for path in (service / PACKAGE / layer).rglob("*.py"):
            found += [(".".join(path.relative_to(service / "src").with_suffix("").parts), path)]
    for module, path in found:
        if not path.exists():  # a module of the chassis that the answers leave out
            continue
        known |= {name: f"from {module} import {name}" for name in _exported(path)}
    for name, module in IMPORTS.items():
        known[name.rpartition(" ")[2]] = f"from {module} import {name}"
    return known


def _exported(path: Path) -> Iterator[str]:
    text = path.read_text()
    for name, source in _definitions(text):
        yield from ast.literal_eval(source.partition("=")[2].strip()) if name == "__all__" else [name]


@cache
def _definitions(text: str) -> list[tuple[str, str]]:
    """Return the name and the source of each class, function and assignment of a module."""
    lines = text.splitlines()
    found = []
    for node in ast.parse(text).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        source = "\n".join(lines[first - 1 : node.end_lineno])
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((node.name, source))
        elif isinstance(node, ast.Assign):
            found.append((ast.unparse(node.targets[0]), source))
        elif isinstance(node, ast.AnnAssign):
            found.append((ast.unparse(node.target), source))
    return found
