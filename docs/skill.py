"""Write the skill for coding tools from docs/how-to: `python -m docs.skill`. With --check, only compare.

The chassis contains the skill, so that each service has the pages of its own version. The pages are links, which Copier and uv
replace by the files. A tool reads only the description in each prompt, and SKILL.md and a page when a task needs them.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOW_TO = ROOT / "docs/how-to"
FOLDER = ROOT / "template/chassis/src/chassis/.agents/skills/slipway"
"""`.agents/skills` in a package is where `library-skills` and editors look for skills."""

START = """\
---
name: slipway
description: >-
  How to change and operate a service of the slipway template, step by step: fields, aggregates, routes, events, jobs,
  settings, migrations, updates, deployment, alerts, parked messages. Read before you edit src/, tests/ or deploy/overlays/.
---

<!-- Written from docs/how-to/README.md of the template by docs/skill.py. Do not edit. -->
# Change and operate a service of the slipway template

Find the task below, read only its page, and follow the page as written: the template's tests follow it up to `make check` and
`make conventions`. If no page fits, read the nearest file of the same layer in `src/`, and keep its shape.

The examples are from a service `billing` with its `Invoice`. A link to a page that is not here, such as
`../reference/chassis.md`, leads to the docs of the template: `MANUAL.md` has their address.
"""


def main() -> int:
    if "--check" in sys.argv:
        return 0 if written() == expected() else 1
    for path in written().keys() - expected().keys():
        (FOLDER / path).unlink()
    for path, content in expected().items():
        target = FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if path == "SKILL.md":
            target.write_text(content)
        else:
            target.symlink_to(content)
    return 0


def expected() -> dict[str, str]:
    """The files of the skill: the text of SKILL.md, and where each page links to."""
    # The last part of the list is for the platform team.
    service = (HOW_TO / "README.md").read_text().partition("\n## Run a platform\n")[0]
    sections = "\n## " + service.partition("\n## ")[2].strip() + "\n"
    pages = [line.partition("](")[2].partition(")")[0] for line in sections.splitlines() if line.startswith("- [")]
    up = os.path.relpath(HOW_TO, FOLDER / "references")
    return {"SKILL.md": START + sections.replace("](", "](references/")} | {
        f"references/{page}": f"{up}/{page}" for page in pages
    }


def written() -> dict[str, str]:
    files = [path for path in FOLDER.rglob("*") if path.is_symlink() or path.is_file()]
    return {
        path.relative_to(FOLDER).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in files
    }


if __name__ == "__main__":
    sys.exit(main())
