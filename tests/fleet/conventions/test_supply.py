"""Dependencies that nobody chose, and secrets that everybody knows."""

import re
from pathlib import Path

import pytest

from tests.fleet.conventions.conftest import Broken, append, edit, only, remove


def locked(name: str, version: str | None = None, source: str | None = None) -> Broken:
    """The lock file has another version of it, or another source."""

    def apply(service: Path) -> None:
        lock = service / "uv.lock"
        text = lock.read_text()
        (was,) = re.findall(rf'name = "{name}"\nversion = "(.+)"\nsource = (.+)\n', text)
        was_lines = f'name = "{name}"\nversion = "{was[0]}"\nsource = {was[1]}\n'
        lines = f'name = "{name}"\nversion = "{version or was[0]}"\nsource = {source or was[1]}\n'
        lock.write_text(text.replace(was_lines, lines))

    return apply


MUTATIONS: dict[str, tuple[str, Broken, str]] = {
    "a key in the code": (
        "supply-no-secrets",
        # Put together here, for scanners of this repository.
        append(
            "src/billing/notes.py",
            'KEY = "AKIA'
            + "Z7Q4XW2N5RJTUVKL"
            + '"\nSECRET = "'
            + "wJq9ZyX3vB7nM1kL5pR8tF2sD6gH0aQe4uC"
            + "YxWzT"
            + '"\n',
        ),
        "it looks like a secret",
    ),
    "no lock file": ("supply-locked", remove("uv.lock"), "there is no lock file"),
    "a dependency that is not locked": (
        "supply-locked",
        edit(
            "pyproject.toml", 'dependencies = ["slipway-chassis"]', 'dependencies = ["slipway-chassis", "attrs~=25.0"]'
        ),
        "it does not know attrs~=25.0 of pyproject.toml",
    ),
    "a dependency that is only in the lock": (
        "supply-locked",
        edit(
            "uv.lock",
            '{ name = "slipway-chassis", editable = "chassis" }',
            '{ name = "slipway-chassis", editable = "chassis" }, { name = "attrs" }',
        ),
        "it has attrs, which pyproject.toml does not ask for",
    ),
    "an override of the chassis": (
        "supply-chassis-ranges",
        edit(
            "pyproject.toml",
            "[tool.uv.workspace]",
            '[tool.uv]\noverride-dependencies = ["fastapi==0.100"]\n\n[tool.uv.workspace]',
        ),
        "it overrides fastapi",
    ),
    "a version that the chassis does not allow": (
        "supply-chassis-ranges",
        locked("structlog", version="21.1.0"),
        "structlog is locked at 21.1.0",
    ),
    "a dependency from git": (
        "supply-from-index",
        locked("structlog", source='{ git = "https://example.com/structlog" }'),
        "structlog comes from git https://example.com/structlog",
    ),
    "a password with a default": (
        "supply-settings-secrets",
        append("src/billing/settings.py", '\n    mail_password: SecretStr = SecretStr("changeme")\n'),
        "mail_password has a default",
    ),
    "a token that shows": (
        "supply-settings-secrets",
        append("src/billing/settings.py", "\n    api_token: str\n"),
        "api_token is no SecretStr",
    ),
}


@pytest.mark.slow
@pytest.mark.xdist_group("conventions")
@pytest.mark.parametrize(("convention", "broken", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_only_the_convention_that_is_broken_fails(service: Path, convention: str, broken: Broken, says: str) -> None:
    broken(service)
    only(service, convention, says)
