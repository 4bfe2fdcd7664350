"""Render a template version that lies in a folder, for the answers of a service."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from copier._main import Worker
from copier._settings import SettingsModel
from copier.errors import CopierError
from jinja2 import TemplateError

from fleet.errors import FleetError
from fleet.processes.resource_limits import limit_resources
from fleet.template.answers import Answers
from fleet.template.copier_worker import NOWHERE, Archived, Content, Kind, Renderer, sources
from fleet.template.jinja_environment import CompiledFiles
from fleet.template.manifest import Manifest, manifest_of, ownership_of
from fleet.template.second_compiler import second_compiler
from fleet.template.seed_inputs import loaded_files


@dataclass(frozen=True)
class Rendered:
    """A rendered service in memory. A file of the team is rendered when it is read."""

    manifest: Manifest
    contents: dict[str, Content]
    # The name of the version, for messages.
    version: str

    def read(self, path: str) -> bytes | None:
        """Return the content of a file or the target of a link; None if there is no such path. Raises FleetError."""
        content = self.contents.get(path)
        if isinstance(content, Path):
            return content.read_bytes()
        if content is None or isinstance(content, bytes):
            return content
        with limit_resources(f"rendering {path} of the template at {self.version}"), _refuse_failures(self.version):
            return content()

    def write(self, path: str, folder: Path) -> None:
        """Write a file into the folder. A path that was not rendered is no file. Raises FleetError."""
        if (content := self.read(path)) is None:
            return
        entry = self.manifest.entry_of(path)
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if entry and entry.mode == "120000":
            file.symlink_to(os.fsdecode(content))
            return
        file.write_bytes(content)
        if entry and entry.mode == "100755":
            file.chmod(0o755)


def render(template: Path, *, commit: str, answers: Answers, data: dict[str, Any] | None = None) -> Rendered:
    """Render the template in that folder, whose version is `commit`, for these answers; `data` are changed answers.

    Recorded answers are treated as in an update: an answer that the template no longer accepts gives way to its default.
    A changed answer that is not accepted raises FleetError.
    """
    with (
        _refuse_failures(commit),
        Renderer(
            src_path=answers.source,
            dst_path=NOWHERE,
            data=data or {},
            defaults=True,
            overwrite=True,
            quiet=True,
            cleanup_on_error=False,
            # The settings of the person who runs fleet are left out, because that person's defaults are not the service's.
            settings=SettingsModel(),
        ) as worker,
    ):
        worker.archived = Archived(url=answers.source, ref=commit)
        worker.archived.folder = template
        worker.ownership = ownership_of(template)
        # The answers are parsed already.
        worker.subproject.last_answers = answers.values | {"_src_path": answers.source, "_commit": answers.version}
        refuse_unknown(worker, data or {}, commit)
        with second_compiler(Path(CompiledFiles().directory), lambda: _compile_files(worker)):
            worker.run_copy()
        _refuse_ignored(worker, data or {}, commit)
        manifest = manifest_of(
            worker.tree,
            worker.answers_content,
            ownership=worker.ownership,
            asked=_asked(worker),
            computed=worker.answers.combined,
        )
        return Rendered(manifest, worker.contents, commit)


@contextmanager
def _refuse_failures(commit: str) -> Generator[None]:
    """Turn the errors of Copier and of a template into FleetError."""
    try:
        yield
    except (CopierError, TemplateError, ArithmeticError, AttributeError, LookupError, ValueError, TypeError) as error:
        raise FleetError(f"the template at {commit} does not render with these answers: {error}") from error


def _compile_files(worker: Renderer) -> None:
    """Compile into the cache what a render of the platform's files needs: the last file first, and loaded files after them."""
    folder, suffix = worker.template.local_abspath, worker.template.templates_suffix
    found = sources(folder, worker.template_copy_root, suffix)
    rendered = [source for source in found if source.kind is Kind.TEMPLATE]
    names = [one.name.as_posix() for one in rendered if not worker.is_seed(one.path.as_posix().removesuffix(suffix))]
    loaded = [other for name in ("copier.yml", *names) for other in loaded_files(folder, name)[1:]]
    for name in dict.fromkeys([*reversed(names), *reversed(loaded)]):
        with suppress(TemplateError, OSError, ValueError):  # a render reports the file, if it needs the file
            worker.jinja_env.get_template(name)


def refuse_unknown(worker: Worker, data: dict[str, Any], commit: str) -> None:
    """Refuse an answer to a question that does not exist, which Copier ignores: a typing error would change nothing."""
    asked = _asked(worker)
    for name in data:
        if name not in asked:
            near = get_close_matches(name.lower().replace("-", "_"), asked, n=1)
            known = f"the nearest name is {near[0]!r}" if near else f"it asks {', '.join(asked)}"
            raise FleetError(f"the template at {commit} asks no question {name!r}; {known}")


def _refuse_ignored(worker: Worker, data: dict[str, Any], commit: str) -> None:
    """Refuse an answer to a question that the other answers rule out, which Copier ignores without a message."""
    for name in data:
        if name in worker.answers.hidden:
            condition = str(worker.template.questions_data[name]["when"]).strip("{} ")
            raise FleetError(
                f"the answer {name} would be ignored: the template at {commit} asks for {name} only if {condition}. "
                f"Leave out -d {name}, or give the answer that {condition} follows from as well (docs/reference/questions.md)"
            )


def _asked(worker: Worker) -> list[str]:
    """List the questions that somebody may answer; the others are computed."""
    return [name for name, question in worker.template.questions_data.items() if question.get("when") is not False]
