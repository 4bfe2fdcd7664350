"""Unwanted dependencies, and published secrets."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from fleet.conventions import committed_secrets
from fleet.conventions.committed_secrets import NoSecrets
from fleet.conventions.packages import UNREAD
from fleet.errors import FleetError, MachineError
from fleet.service.service import Service
from tests.fleet.conventions.mutations import (
    Broken,
    Mutations,
    append,
    both,
    each_alone,
    edit,
    from_a_secret,
    remove,
    texts_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conventions")]

# The parts are joined here, so that scanners of this repository do not find them.
KEY = f'KEY = "{"AKIA"}Z7Q4XW2N5RJTUVKL"\nSECRET = "{"wJq9ZyX3vB7nM1kL5pR8"}tF2sD6gH0aQe4uCYxWzT"\n'


def locked(name: str, version: str | None = None, source: str | None = None) -> Broken:
    """Give the package another version or another source in the lock file."""

    def apply(service: Path) -> None:
        lock = service / "uv.lock"
        text = lock.read_text()
        (was,) = re.findall(rf'name = "{name}"\nversion = "(.+)"\nsource = (.+)\n', text)
        was_lines = f'name = "{name}"\nversion = "{was[0]}"\nsource = {was[1]}\n'
        lines = f'name = "{name}"\nversion = "{version or was[0]}"\nsource = {source or was[1]}\n'
        lock.write_text(text.replace(was_lines, lines))

    return apply


TOKEN = from_a_secret("API_TOKEN", "neighbour", "token")

MUTATIONS: Mutations = {
    "a key in the code": (
        "supply-no-secrets",
        append("src/billing/notes.py", KEY),
        "the text looks like a secret",
    ),
    "a key in a file that the template does not know": (
        "supply-no-secrets",
        append("local.mk", KEY),
        "the text looks like a secret",
    ),
    "a key in a file of the platform that was edited": (
        "supply-no-secrets",
        append("MANUAL.md", KEY),
        "the text looks like a secret",
    ),
    "a key in a seed that was edited": (
        "supply-no-secrets",
        append("README.md", KEY),
        "the text looks like a secret",
    ),
    "a key with a comment that would have it passed over": (
        "supply-no-secrets",
        append("src/billing/notes.py", KEY.rstrip() + "  # kingfisher:ignore\n"),
        "the text looks like a secret",
    ),
    "no lock file": ("supply-locked", remove("uv.lock"), "there is no lock file"),
    "a dependency that is not locked": (
        "supply-locked",
        edit(
            "pyproject.toml", 'dependencies = ["slipway-chassis"]', 'dependencies = ["slipway-chassis", "attrs~=25.0"]'
        ),
        "the file lacks attrs~=25.0 of pyproject.toml",
    ),
    "a dependency that is only in the lock": (
        "supply-locked",
        edit(
            "uv.lock",
            '{ name = "slipway-chassis", editable = "chassis" }',
            '{ name = "slipway-chassis", editable = "chassis" }, { name = "attrs" }',
        ),
        "the file has attrs, which pyproject.toml does not require",
    ),
    "a dependency without a version": (
        "supply-locked",
        edit("uv.lock", '[[package]]\nname = "uvloop"\n', '[[package]]\nname = "uv-loop"\n'),
        "the file has no version of uvloop, which chassis/pyproject.toml requires",
    ),
    "an override of the chassis": (
        "supply-chassis-ranges",
        edit(
            "pyproject.toml",
            "[tool.uv.workspace]",
            '[tool.uv]\noverride-dependencies = ["fastapi==0.100"]\n\n[tool.uv.workspace]',
        ),
        "the file overrides fastapi",
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
        both(
            append("src/billing/settings.py", "\n    api_token: str\n"),
            append("docs/runbook.md", "\n| `API_TOKEN` | none: required | for the neighbour |\n"),
            *(append(f"deploy/overlays/{name}/kustomization.yaml", TOKEN) for name in ("production", "staging")),
        ),
        "api_token is not a SecretStr",
    ),
}


test_only_the_convention_that_is_broken_fails = each_alone(MUTATIONS)


@pytest.mark.slow
def test_a_password_of_the_template_in_a_file_that_was_edited_is_no_secret_of_the_service(service: Path) -> None:
    compose = service / "compose.yaml"
    compose.write_text(f"# Ours.\n{compose.read_text()}")
    assert list(NoSecrets().check(Service(service))) == []
    append("compose.yaml", KEY)(service)
    assert {found.path for found in NoSecrets().check(Service(service))} == {"compose.yaml"}


def test_a_shared_secret_is_found_in_each_service_of_a_common_scan(service: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(service, tmp_path / "other", symlinks=True))
    # The keys are in files that no other test has, because a cached result would prevent the scan.
    append("src/billing/ours.py", f"# Ours.\n{KEY}")(service)
    append("src/billing/theirs.py", f"# Theirs.\n{KEY}")(other)
    services = [Service(service), Service(other)]
    NoSecrets().prepare(services)
    found = [[problem.path for problem in NoSecrets().check(one)] for one in services]
    assert found == [["src/billing/ours.py"], ["src/billing/theirs.py"]]


SESSION = "IQoJb3JpZ2luX2VjEJr" + "3Zx9qLr4Tt2mWv8Kp1B7yYhQ" * 4
VALUE = "Zx9+qLr4/Tt2mWv8" + "Kp1B"
EXPOSED = {
    "session.env": f"AWS_SESSION_TOKEN={SESSION}\n",
    "data.yaml": f"kind: Secret\nmetadata:\n  name: mail\ndata:\n  password: {VALUE}\n",
    "quoted.yaml": f'kind: "Secret"\nstringData:\n  user: a\n  password: "{VALUE}"\n',
    "block.yaml": f"kind: Secret\ndata:\n  tls.key: |\n    {VALUE}\n",
    "one-line.yaml": f"kind: Secret\nmetadata: {{name: mail}}\ndata: {{ user: a, password: {VALUE} }}\n",
    "one-line-kind-last.yaml": f"v: 1\ndata: {{password: {VALUE}}}\nkind: Secret\n",
    "kind-last.yaml": f"apiVersion: v1\ndata:\n  password: {VALUE}\nkind: Secret\n",
}
HARMLESS = {
    "two-documents.yaml": f"kind: Secret\nmetadata: {{name: mail}}\n---\nkind: ConfigMap\ndata:\n  digest: {VALUE}\n",
    "turned-round.yaml": f"kind: ConfigMap\ndata:\n  digest: {VALUE}\n---\nkind: Secret\n",
    "variable.yaml": "kind: Secret\nstringData:\n  password: ${MAIL_PASSWORD}\n",
    "one-line-variable.yaml": "kind: Secret\nstringData: {password: ${MAIL_PASSWORD}}\n",
    "empty.yaml": f"kind: Secret\ndata: {{}}\n---\ndigest: {VALUE}\n",
    "external.yaml": "kind: ExternalSecret\nspec:\n  data:\n    secretKey: databaseUrl0\n",
}


@pytest.mark.slow
def test_the_rules_in_the_place_of_kingfishers_find_the_secrets_of_a_manifest_and_of_a_session(tmp_path: Path) -> None:
    for name, text in (EXPOSED | HARMLESS).items():
        (tmp_path / name).write_text(text)
    assert {path for path, _, _ in committed_secrets._scan(tmp_path)} == set(EXPOSED)


SETTINGS = """
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr


class Mail(BaseModel):
    signing_key: str = "change-me"
    password: Annotated[SecretStr, Field(default="change-me")]
    passphrase: SecretStr = Field(default_factory=lambda: SecretStr("change-me"))

    # No secrets, and secrets without a default.
    routing_key: str = "invoices"
    token_required: bool = True
    token_ttl: int = 60
    token_issuer: str = "https://login.example.com"
    api_token: SecretStr | None = None
    client_secret: SecretStr = Field(min_length=8)
"""


def test_every_way_to_give_a_secret_a_default_is_known(service: Path) -> None:
    append("src/billing/settings.py", SETTINGS)(service)
    append("src/billing/mail.py", SETTINGS.replace("Mail(BaseModel)", "MailSettings(BaseModel)"))(service)
    found = [f"{name} has a default" for name in ("signing_key", "password", "passphrase")]
    assert texts_of(service, "supply-settings-secrets") == found * 2


def test_a_member_of_the_workspace_is_no_source_of_another_kind(service: Path) -> None:
    library = '\n[[package]]\nname = "tariffs"\nversion = "0.1.0"\nsource = { editable = "libs/tariffs" }\n'
    append("uv.lock", library)(service)
    assert texts_of(service, "supply-from-index") == ["tariffs comes from editable libs/tariffs"]
    edit("pyproject.toml", 'members = ["chassis"]', 'members = ["chassis", "libs/*"]')(service)
    assert texts_of(service, "supply-from-index") == []


def test_rules_whose_compilation_was_given_up_are_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, compilations = tmp_path / "rules", []

    def compile_(_folder: Path, rules: Path) -> subprocess.CompletedProcess[str]:
        rules.mkdir()
        compilations.append(rules)
        if len(compilations) == 1:
            raise MachineError("kingfisher was given up")
        return subprocess.CompletedProcess("kingfisher", -signal.SIGXCPU if len(compilations) == 2 else 0, "", "")

    monkeypatch.setenv("KF_RULE_CACHE_DIR", str(rules))
    monkeypatch.setattr(committed_secrets, "_run_kingfisher", compile_)
    for _ in range(2):
        with pytest.raises(MachineError):
            NoSecrets().prepare([])
        assert not rules.exists()
    for _ in range(2):
        NoSecrets().prepare([])
    assert len(compilations) == 3
    assert rules.is_dir()


WHEEL = '    { url = "https://index.example.com/a.whl", hash = "sha256:0", size = 1 },\n'


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f'name = "a"\nwheels = [\n{WHEEL}{WHEEL}]\n', 'name = "a"\nwheels = [\n]\n'),
        (
            'dependencies = [\n    { name = "b", extra = ["c", "d"], marker = "a < \'3\'" },\n]\n',
            "dependencies = [\n]\n",
        ),
        ('sdist = { url = "https://index.example.com/a", size = 1 }\n', "sdist = { }\n"),
        (f'wheels = [\n{WHEEL}"""\n]\n', None),
        ('wheels = [\n    { url = """, b = "c" },\n]\n', None),
    ],
    ids=["wheels", "dependencies", "sdist", "with a text of several lines", "with the beginning of such a text"],
)
def test_parts_of_a_lock_file_are_left_out_in_the_form_that_uv_writes(text: str, left: str | None) -> None:
    assert UNREAD.sub("", text) == (text if left is None else left)


def test_wheels_that_a_lock_file_has_twice_are_no_toml(service: Path) -> None:
    wheels = f"wheels = [\n{WHEEL}]\n"
    append("uv.lock", f'\n[[package]]\nname = "tariffs"\nversion = "1"\n{wheels}{wheels}')(service)
    with pytest.raises(FleetError, match=r"uv\.lock is not TOML"):
        Service(service).toml("uv.lock", UNREAD)


def test_a_lock_file_is_read_whole_after_a_reading_without_wheels(service: Path) -> None:
    append("uv.lock", f'\n[[package]]\nname = "tariffs"\nversion = "1"\nwheels = [\n{WHEEL}]\n')(service)
    opened = Service(service)
    assert [opened.toml("uv.lock", unread)["package"][-1]["wheels"] for unread in (UNREAD, None)] == [
        [],
        [{"url": "https://index.example.com/a.whl", "hash": "sha256:0", "size": 1}],
    ]
