"""Tools run on the files of a service, but none of these files configures a tool or runs in it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.conventions import conventions
from fleet.judges import tools
from fleet.service.service import Service
from tests.fleet.services import Born, commit, waive

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hostile")]

Harm = Callable[[Path, Path], object]
"""A function that adds something harmful to a service. If that runs, it writes the second path."""


def write(service: Path, path: str, text: str) -> None:
    (service / path).parent.mkdir(parents=True, exist_ok=True)
    (service / path).write_text(text)


def found(service: Path, *ids: str) -> dict[str, list[str]]:
    """Return the findings of these conventions in the last commit."""
    looked_at = Service(service, "HEAD", "HEAD")
    return {one.id: [problem.what for problem in one.check(looked_at)] for one in conventions() if one.id in ids}


def runs(proof: Path) -> str:
    """Return a line of Python that reveals its run."""
    return f"open({str(proof)!r}, 'w').write('run')\n"


# --- import-linter ----------------------------------------------------------------------------------------------------

LENIENT = "[importlinter]\nroot_packages = billing\n"


def test_the_contracts_of_the_template_count_and_not_the_contracts_of_the_service(born: Born) -> None:
    service = born()
    write(service, ".importlinter", LENIENT)
    with (service / "src/billing/domain/invoices.py").open("a") as file:
        file.write("\nimport billing.api\n")
    commit(service)
    assert found(service, "code-layers") == {"code-layers": ["billing.domain.invoices may not import billing.api"]}


@pytest.mark.parametrize("is_waived", [True, False])
def test_a_contract_type_of_the_service_does_not_run(born: Born, tmp_path: Path, *, is_waived: bool) -> None:
    service, proof = born(), tmp_path / "proof"
    contract = "contract_types = evil: billing.evil.Evil\n[importlinter:contract:x]\nname = x\ntype = evil\n"
    write(service, ".importlinter", f"{LENIENT}{contract}")
    write(service, "src/billing/evil.py", runs(proof))
    if is_waived:
        waive(service, ".importlinter")
    commit(service)
    if is_waived:
        with pytest.raises(Exception, match="contract_types, which is code of the service"):
            found(service, "code-layers")
    else:
        assert found(service, "code-layers") == {"code-layers": []}
    assert not proof.exists()


def test_a_package_that_contracts_name_is_not_imported(born: Born, tmp_path: Path) -> None:
    """To find a package inside of another package, Python would import the outer package."""
    service, proof = born(), tmp_path / "proof"
    contract = "[importlinter:contract:x]\nname = x\ntype = layers\nlayers =\n    billing.domain.invoices\n"
    write(service, ".importlinter", f"[importlinter]\nroot_packages =\n    billing.domain\n{contract}")
    write(service, "src/billing/__init__.py", runs(proof))
    waive(service, ".importlinter")
    commit(service)
    with pytest.raises(Exception, match="could not judge"):
        found(service, "code-layers")
    assert not proof.exists()


# --- zizmor, kingfisher, squawk ---------------------------------------------------------------------------------------

WORKFLOW = """on: issues
permissions: write-all
jobs:
  harm:
    runs-on: ubuntu-latest
    timeout-minutes: 5
    steps:
      - run: echo ${{ github.event.issue.title }}  # zizmor: ignore[template-injection]
"""
NO_RULES = "".join(f"  {rule}:\n    disable: true\n" for rule in ("excessive-permissions", "template-injection"))
CONFIGURATION = {
    "zizmor.yml": f"rules:\n{NO_RULES}",
    ".github/zizmor.yml": f"rules:\n{NO_RULES}",
    "kingfisher.yaml": 'exclude: ["*"]\n',
    ".kingfisher.yaml": 'exclude: ["*"]\n',
    ".kingfisherignore": "*\n",
    ".config/kingfisher/config.yaml": 'exclude: ["*"]\n',
    ".squawk.toml": 'excluded_rules = ["ban-drop-column"]\nexcluded_paths = ["*"]\n',
    "src/billing/migrations/versions/.squawk.toml": 'excluded_rules = ["ban-drop-column"]\n',
    "ruff.toml": 'extend = "/etc/passwd"\n',
    ".checkov.yaml": "external-checks-dir: [.]\n",
    "uv.toml": 'index-url = "http://127.0.0.1:9/simple"\n',
    ".python-version": "2.7\n",
    ".gitconfig": "[core]\nexcludesFile = .gitignore\n",
    ".config/git/ignore": "*\n",
    ".gitattributes": "* export-ignore -diff filter=harm\n",
    ".ignore": "*\n",
    ".gitignore": "*\n",
}
# The key of a published example, which is not in use.
SECRET = "AKIAQ3EGRZ6HKLNZQ5OP"


def test_configuration_in_the_repository_hides_no_finding(born: Born) -> None:
    service = born()
    write(service, ".github/workflows/harm.yml", WORKFLOW)
    write(service, "src/billing/keys.py", f'aws = "{SECRET}"\nsecret = "kX9vBq2LmT7wRz4YpN8sDf3GhJ6cVb1QeWaSxUiO"\n')
    commit(service)
    ids = ("supply-no-secrets", "workflow-least-privilege", "workflow-safe")
    before = found(service, *ids)
    assert all(before.values()), before
    for path, text in CONFIGURATION.items():
        write(service, path, text)
    subprocess.run(["git", "add", "--all", "--force"], cwd=service, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "Harm"], cwd=service, check=True)
    after = found(service, *ids)
    assert {id_: set(whats) >= set(before[id_]) for id_, whats in after.items()} == dict.fromkeys(ids, True)


def test_a_tool_gets_an_empty_home_and_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hush")
    script = 'env; ls -A "$HOME"; pwd'
    lines = tools.run(["/bin/sh", "-c", script], cwd=tmp_path).stdout.splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    assert given.keys() <= {"PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}
    assert Path(given["HOME"]) != tmp_path
    assert [line for line in lines if "=" not in line] == [str(tmp_path)]


# --- Python -----------------------------------------------------------------------------------------------------------

# Names that Python, or a program of fleet, would import if a folder of the service were on its path.
MODULES = ["sitecustomize", "usercustomize", "json", "typing", "alembic", "sqlalchemy", "importlinter", "grimp", "rich"]
FOLDERS = ["", "src", "src/billing", "src/billing/domain", "chassis/src", "tests"]


def test_no_module_of_the_service_is_imported(born: Born, tmp_path: Path) -> None:
    service, proof = born(), tmp_path / "proof"
    for folder in FOLDERS:
        for name in MODULES:
            write(service, f"{folder}/{name}.py".lstrip("/"), runs(proof))
        write(service, f"{folder}/harm.pth".lstrip("/"), f"import sys; {runs(proof)}")
    write(
        service,
        "src/billing/migrations/versions/0002_json.py",
        f"{runs(proof)}revision = '0002'\ndown_revision = '0001'\n",
    )
    write(service, "conftest.py", runs(proof))
    write(service, "pyproject.toml", (service / "pyproject.toml").read_text() + "\n[tool.uv]\nno-index = true\n")
    (service / "docs/link").symlink_to("/etc")
    subprocess.run(["git", "switch", "--quiet", "--create", "harm"], cwd=service, check=True)
    commit(service)
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [tools.program("fleet"), "check", "--ref", "harm", "--base", "main"],
        cwd=service,
        env={**os.environ, "HOME": str(home), "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )
    assert "migration-safe" in done.stdout, done.stderr
    assert "a check has a bug" not in done.stdout
    assert not proof.exists()
    assert list(home.iterdir()) == []
