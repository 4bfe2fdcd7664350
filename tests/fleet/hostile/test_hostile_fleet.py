"""Hostile repositories of every kind next to twenty good ones: nothing runs, nothing is written, twenty good results."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.judges import tools
from tests.fleet.bombs import DEEP, bomb, laughs, many, with_tree
from tests.fleet.hostile.trees import HARMFUL, with_path
from tests.fleet.services import Born, commit, waive

pytestmark = pytest.mark.slow

GOOD = 20
COMMITTED = object()
"""Returned by a way that makes its own commit, because Git would never finish with the files of the working copy."""
LIMIT_SECONDS = "6"
"""The limit of processor time for each service. A good service takes one or two seconds."""

Way = tuple[Callable[[Path, str], object], str]
"""A function that makes a service hostile, by Python code that reveals its run; and the text that the report must have."""


def file(path: str, text: str) -> Callable[[Path, str], None]:
    def write(service: Path, code: str) -> None:
        (service / path).parent.mkdir(parents=True, exist_ok=True)
        (service / path).write_text(text.replace("CODE", code))

    return write


def answer(name: str, value: object) -> Callable[[Path, str], None]:
    def write(service: Path, _code: str) -> None:
        answers = service / ".copier-answers.yml"
        kept = [line for line in answers.read_text().splitlines() if not line.startswith(f"{name}:")]
        answers.write_text("\n".join([*kept, f"{name}: {json.dumps(value)}", ""]))

    return write


def a_million_aggregates(service: Path, code: str) -> None:
    answer("aggregates", "\n".join(f"a{n}: {{}}" for n in range(10**6)))(service, code)


def contract_type(service: Path, code: str) -> None:
    rules = "[importlinter]\nroot_packages =\n    billing\ncontract_types =\n    evil: billing.evil.Evil\n"
    file(".importlinter", f"{rules}[importlinter:contract:x]\nname = x\ntype = evil\n")(service, code)
    file("src/billing/evil.py", "CODE\n")(service, code)
    waive(service, ".importlinter")


def nested_package(service: Path, code: str) -> None:
    contract = "[importlinter:contract:x]\nname = x\ntype = layers\nlayers =\n    billing.domain.invoices\n"
    file(".importlinter", f"[importlinter]\nroot_packages =\n    billing.domain\n{contract}")(service, code)
    file("src/billing/__init__.py", "CODE\n")(service, code)
    waive(service, ".importlinter")


def modules(service: Path, code: str) -> None:
    for name in ("sitecustomize", "json", "importlinter", "yaml", "copier"):
        for folder in ("", "src/", "src/billing/"):
            file(f"{folder}{name}.py", "CODE\n")(service, code)


def leaves_its_folder(service: Path, code: str) -> object:
    with_path(service, HARMFUL[0], code.encode())
    return COMMITTED


def link(service: Path, _code: str) -> None:
    (service / "Dockerfile").unlink()
    (service / "Dockerfile").symlink_to("/etc/passwd")


def tree(made: Callable[[Path], str]) -> Callable[[Path, str], object]:
    def write(service: Path, _code: str) -> object:
        with_tree(service, made(service))
        return COMMITTED

    return write


KUSTOMIZATION = """resources: [deployment.yaml]
patches:
  - target: {name: "(a+)+b"}
    patch: "[]"
"""


def slow_pattern(service: Path, code: str) -> None:
    file("deploy/overlays/production/kustomization.yaml", KUSTOMIZATION)(service, code)
    one = "kind: Deployment\nmetadata: {name: " + "a" * 60 + "}\n"
    file("deploy/overlays/production/deployment.yaml", one)(service, code)


WAYS: dict[str, Way] = {
    "a contract type": (contract_type, "fleet runs none"),
    "a nested package": (nested_package, "could not judge"),
    "modules that Python would find": (modules, ""),
    "a migration": (
        file("src/billing/migrations/versions/0009_harm.py", "CODE\n"),
        "does not assign a plain text to revision",
    ),
    "a path that leaves": (leaves_its_folder, "leaves its folder"),
    "a link out of the folder": (link, "Dockerfile"),
    "another template": (answer("_src_path", "https://127.0.0.1:9/evil.git"), "is not the platform's"),
    "an escape in the version": (answer("_commit", "\x1b]52;c;ZXZpbA==\x07"), "has no version"),
    "an option in the version": (answer("_commit", "--upload-pack=touch"), "has no version"),
    "Jinja in an answer": (
        answer("description", "{{ ''.__class__.__mro__ }}{% for _ in range(9**9) %}{% endfor %}"),
        "",
    ),
    "a million aggregates": (a_million_aggregates, ""),
    "a long name": (answer("service_name", "a" * 10**5), ""),
    "a long line": (file("CODEOWNERS", "*" * 10**6), ""),
    "aliases in the answers": (file(".copier-answers.yml", laughs("merged")), "is not YAML"),
    "aliases in a document": (file("catalog-info.yaml", laughs("listed")), "is not YAML"),
    "a deep document": (file("specs/openapi.json", "[" * DEEP), "is not JSON"),
    "deep code": (file("src/billing/deep.py", "a = " + "-" * DEEP + "1\n"), "is not Python"),
    "a slow pattern": (slow_pattern, "takes more than"),
    "a tree of a trillion files": (tree(bomb), "more than 100,000 files"),
    "more files than anybody has": (tree(many), "more than 100,000 files"),
}


@pytest.fixture
def platform(born: Born, history: Path, tmp_path: Path) -> Path:
    """A folder with the fleet.toml of all services. `ran` lists the runs, by the name of the service."""
    folder = tmp_path / "platform"
    folder.mkdir()
    lines = [f'template = "{history}"']
    for number, (harm, _) in enumerate(WAYS.values()):
        service = born()
        code = f"open({str(tmp_path / f'ran-{number}')!r}, 'w')"
        if harm(service, code) is not COMMITTED:
            commit(service)
        lines.append(f'[[service]]\npath = "{service}"\nname = "hostile-{number}"')
    lines += [f'[[service]]\npath = "{born()}"\nname = "good-{number}"' for number in range(GOOD)]
    (folder / "fleet.toml").write_text("\n".join(lines))
    return folder


@pytest.mark.xdist_group("hostile")
def test_twenty_good_services_are_judged_next_to_hostile_services(platform: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [tools.program("fleet"), "status", "--format", "json"],
        cwd=platform,
        env={
            **os.environ,
            "HOME": str(home),
            "FLEET_CACHE_DIR": str(tmp_path / "cache"),
            "FLEET_LIMIT_SECONDS": LIMIT_SECONDS,
        },
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    services: dict[str, Any] = {one["name"]: one for one in json.loads(done.stdout)["services"]}
    good = [services[f"good-{number}"] for number in range(GOOD)]
    assert [one["unreadable"] for one in good] == [""] * GOOD
    assert len({json.dumps([one["platform"], one["conventions"]]) for one in good}) == 1
    for number, (way, (_, told)) in enumerate(WAYS.items()):
        text = json.dumps(services[f"hostile-{number}"])
        assert told in text, (way, text[:2000])
        assert "has a bug" not in text, (way, text)
    assert list(tmp_path.glob("ran-*")) == []
    assert list(home.iterdir()) == []
    assert [path.name for path in platform.iterdir()] == ["fleet.toml"]
