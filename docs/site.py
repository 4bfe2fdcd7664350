"""Build the documentation site into build/documentation/site, strictly: `python -m docs.site`. A link that leads nowhere fails it."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHASSIS = ROOT / "template/chassis/src/chassis"
FOLDER = ROOT / "build/documentation"

HOW_TO = "how-to/README.md"
FRONT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "license.md",
}
CLIENT = "dev.issuer.Client"
"""The one public class of an internal module: the client in the tests of a service with identity."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def main() -> int:
    """Build the site, unless it was built from the same sources."""
    record, digest = FOLDER / "digest-of-sources", digest_of_sources()
    if record.exists() and record.read_text() == digest:
        return 0
    faults = build(FOLDER)
    print(faults, end="")
    if not faults:
        record.write_text(digest)
    return 1 if faults else 0


def digest_of_sources() -> str:
    builders = [version("zensical"), version("mkdocstrings-python")]
    files = [Path(__file__), ROOT / "docs/zensical.toml", *pages(), *CHASSIS.rglob("*.py")]
    contents = (f"{file}:{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in sorted(files))
    return hashlib.sha256("\n".join([*builders, *contents]).encode()).hexdigest()


def build(folder: Path) -> str:
    """Build the site into `site` of this folder. Returns the faults."""
    write_source(folder)
    return built(folder)


def built(folder: Path) -> str:
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", "zensical.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    return "" if done.returncode == 0 else done.stdout + done.stderr.partition("Traceback")[0]


def write_source(folder: Path) -> None:
    """Write what Zensical reads: the pages with their links, the list of the chassis' modules, the navigation."""
    shutil.rmtree(folder, ignore_errors=True)
    for file, place in pages().items():
        target = folder / "pages" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in {".svg", ".png"}:
            shutil.copyfile(file, target)
        else:
            target.write_text(text_of(file))
    with (folder / "pages/reference/chassis.md").open("a") as page:
        page.writelines(f"\n::: chassis.{name}\n" for name in (*public_modules(), CLIENT))
    (folder / "zensical.toml").write_text(settings(navigation()))


def settings(navigation: dict[str, str | list[str]]) -> str:
    text = (ROOT / "docs/zensical.toml").read_text()
    listed = text.replace("[project]\n", f"[project]\nnav = {in_toml(navigation)}\n", 1)
    return listed.replace("CHASSIS", CHASSIS.parent.as_posix())


def pages() -> dict[Path, str]:
    """Where each file of the repository is in the site."""
    inside = [file for file in (ROOT / "docs").rglob("*.*") if file.suffix in {".md", ".svg", ".png"}]
    return {ROOT / name: place for name, place in FRONT.items()} | {
        file: file.relative_to(ROOT / "docs").as_posix() for file in inside
    }


def text_of(file: Path) -> str:
    """The page, with its links as they are in the site. A link to a file that is no page becomes text."""
    places = pages()

    def moved(link: re.Match[str]) -> str:
        text, (path, mark, fragment) = link[1], link[2].partition("#")
        if not path or re.match(r"\w+:", link[2]):
            return link[0]
        place = places.get((file.parent / path).resolve())
        if place is None:
            return text
        return f"[{text}]({os.path.relpath(place, Path(places[file]).parent)}{mark}{fragment})"

    title = "# License\n\n" if file.name == "LICENSE" else ""
    return title + LINK.sub(moved, file.read_text())


def navigation() -> dict[str, str | list[str]]:
    docs = ROOT / "docs"
    listed = re.split(r"^## (.*)$", (docs / HOW_TO).read_text(), flags=re.MULTILINE)
    return {
        "Home": "index.md",
        "Tutorial": "tutorial.md",
        **{
            title: [f"how-to/{path}" for path in re.findall(r"^- \[.*?\]\((.*?)\)", text, re.MULTILINE)]
            for title, text in zip(listed[1::2], listed[2::2], strict=True)
        },
        "Explanation": sorted(f"explanation/{page.name}" for page in (docs / "explanation").glob("*.md")),
        "Reference": [
            *sorted(f"reference/{page.name}" for page in (docs / "reference").glob("*.md")),
            *(place for place in FRONT.values() if place != "index.md"),
            HOW_TO,
        ],
        "Decisions": sorted((f"decisions/{page.name}" for page in (docs / "decisions").glob("*.md")), key=readme_first),
    }


def readme_first(path: str) -> tuple[bool, str]:
    return not path.endswith("README.md"), path


def in_toml(navigation: dict[str, str | list[str]]) -> str:
    entries = (f"  {{ {json.dumps(title)} = {json.dumps(pages)} }}" for title, pages in navigation.items())
    return "[\n" + ",\n".join(entries) + ",\n]"


def public_modules() -> list[str]:
    """The modules that the docstring of the chassis lists, in its order."""
    docstring = ast.get_docstring(ast.parse((CHASSIS / "__init__.py").read_text())) or ""
    return re.findall(r"^(\w+)  +\S", docstring, re.MULTILINE)


def file_of(module: str, chassis: Path = CHASSIS) -> Path:
    """The file of a module, or the `__init__` of a package."""
    path = chassis.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


if __name__ == "__main__":
    sys.exit(main())
