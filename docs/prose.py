"""Check the words and sentences of pages and comments: `python -m docs.prose`. The rules are in docs/styles/Slipway."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = "github.com/vale-cli/vale/v3/cmd/vale@v3.22.0"
BUILT = ROOT / "build" / "tools" / f"vale-{MODULE.rpartition('@')[2]}"
"""Where `make tools` builds Vale. PyPI's `vale` downloads a program from GitHub when it first runs, so it needs the internet."""

ACCEPTED = ROOT / "build" / "accepted-prose"
"""The digests of the files that the rules have accepted. Vale takes twenty seconds for all files."""

CHECKED = ("*.md", "*.md.jinja", "*.py")


def main() -> int:
    program = BUILT if BUILT.exists() else shutil.which("vale")
    if program is None:
        print(
            "The prose was not checked, because Vale is missing: `make tools` builds it, where there is Go and a C compiler."
        )
        return 0
    return check_changes(program, checked_files())


def check_changes(program: str | Path, files: list[str]) -> int:
    """Check the files that have changed since the rules accepted them, or all files if the rules have changed."""
    rules = b"".join(path.read_bytes() for path in sorted((ROOT / "docs/styles").rglob("*")) if path.is_file())
    digests = {name: hashlib.sha256(rules + (ROOT / name).read_bytes()).hexdigest() for name in files}
    accepted = set(ACCEPTED.read_text().split()) if ACCEPTED.exists() else set()
    changed = [name for name in files if digests[name] not in accepted]
    if changed and (status := check(program, changed)):
        return status
    ACCEPTED.parent.mkdir(exist_ok=True)
    ACCEPTED.write_text("\n".join(digests.values()))
    return 0


def check(program: str | Path, files: list[str], *options: str) -> int:
    command = [program, "--config", ROOT / "docs/styles/vale.ini", "--output", "line", *options]
    return subprocess.run([*command, *files], cwd=ROOT).returncode


def checked_files() -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", *CHECKED]
    names = subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
    return [name for name in names if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


if __name__ == "__main__":
    sys.exit(main())
