"""Writes docs/reference/questions.md from copier.yml: `python docs/generate_questions.py`."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent, indent
from typing import Any

import copier
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "questions.md"
EXAMPLE = "billing"


class _Loader(yaml.SafeLoader):
    """Reads copier.yml, whose `!include` matters to no question."""


_Loader.add_constructor("!include", lambda loader, node: None)


def page() -> str:
    """Return the page, as copier.yml makes it."""
    text = (ROOT / "copier.yml").read_text()
    parts = yaml.load_all(text, _Loader)
    questions = {name: asked for part in parts for name, asked in part.items() if not name.startswith("_")}
    answers = example_answers()
    asked = {name: question for name, question in questions.items() if question.get("when") is not False}
    return "\n".join(
        [
            "# Questions",
            "",
            "<!-- Written from copier.yml by docs/generate_questions.py. Do not edit. -->",
            "",
            f"Copier asks these questions, in this order. The defaults are shown for a service called `{EXAMPLE}`. Give an answer",
            "without being asked by `-d name=value`, or several in a file by `--data-file answers.yml`.",
            *(line for name in asked for line in section(name, asked[name], rule(text, name), answers[name])),
            "",
            "## Computed answers",
            "",
            "Never asked and never stored; templates may use them.",
            "",
            "| name | type | what |",
            "|---|---|---|",
            *(
                f"| `{name}` | {questions[name]['type']} | {rule(text, name)} |"
                for name in questions
                if name not in asked
            ),
            "",
        ]
    )


def section(name: str, question: dict[str, Any], rule: str, default: object) -> Iterator[str]:
    yield from ("", f"## `{name}`", "", " ".join(question["help"].split()), "")
    if question.get("ask") is False:
        yield "- Never asked: for `-d`"
    yield f"- Rule: {rule}"
    if "choices" in question:
        yield "- Choices: " + ", ".join(f"`{value}` ({label})" for label, value in question["choices"].items())
    else:
        yield "- Type: " + (question["type"] if "{" not in question["type"] else "text, or a mapping in a data file")
    if isinstance(default, str) and "\n" in default:
        yield from ("- Default:", "", indent(f"```yaml\n{dedent(default).strip()}\n```", "  "))
    elif default == "":
        yield "- Default: empty"
    else:
        yield f"- Default: `{str(default).lower() if isinstance(default, bool) else default}`"


def rule(text: str, name: str) -> str:
    """The first paragraph of the comment above a question."""
    comment = re.search(rf"((?:^#.*\n)+){name}:", text, re.MULTILINE)
    if comment is None:
        raise SystemExit(f"copier.yml: say above {name} which answers it takes, in a comment")
    paragraph = comment[1].split("#\n")[0]
    return " ".join(line.lstrip("# ") for line in paragraph.splitlines())


def example_answers() -> dict[str, Any]:
    """Every answer of a service that takes all defaults."""
    with TemporaryDirectory() as folder:
        source = Path(folder, "template")
        shutil.copytree(ROOT / "questions", source / "questions")
        shutil.copytree(ROOT / "ownership", source / "ownership")
        shutil.copy(ROOT / "copier.yml", source)
        Path(source, "template").mkdir()
        data = {"service_name": EXAMPLE}
        target = Path(folder, EXAMPLE)
        worker = copier.run_copy(str(source), target, data=data, defaults=True, pretend=True, quiet=True)
        return dict(worker.answers.combined)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
