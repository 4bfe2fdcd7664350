"""A cookiecutter template made of finished services, one for each of its releases."""

import json
import re
import shutil
import subprocess
from pathlib import Path

# The openings of tags of Jinja, which cookiecutter would execute.
TAGS = re.compile(rb"\{[{%#]")


def cookiecutter_of(template: Path, name: str, releases: list[Path]) -> Path:
    """Make a repository with the tags v1.0.0, v1.1.0, …. It asks for a name, and with `name` renders exactly these files."""
    variable = "{{cookiecutter.name}}"
    template.mkdir()
    _git(template, "init", "--quiet", "--initial-branch", "main")
    for number, release in enumerate(releases):
        shutil.rmtree(template / variable, ignore_errors=True)
        copied = []
        for path in sorted(path for path in release.rglob("*") if path.is_file()):
            relative = path.relative_to(release).as_posix()
            content = path.read_bytes()
            if TAGS.search(content):
                copied.append(f"*/{relative.rpartition('/')[2]}")
            else:
                content = content.replace(name.encode(), variable.encode())
            target = template / variable / relative.replace(name, variable)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(path.stat().st_mode)
        (template / "cookiecutter.json").write_text(json.dumps({"name": name, "_copy_without_render": copied}))
        _git(template, "add", "--all", "--force")
        _git(template, "commit", "--quiet", "--message", f"v1.{number}.0")
        _git(template, "tag", f"v1.{number}.0")
    return template


def _git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=repository, check=True)
