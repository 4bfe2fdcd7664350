"""One process of import-linter judges services one after the other, each as if it were alone."""

import json
import subprocess
import sys
from pathlib import Path

from fleet.judges.import_linter import LINTING

CONTRACTS = """[importlinter]
root_packages =
    {package}
    chassis
include_external_packages = {external}
exclude_type_checking_imports = {guarded}
[importlinter:contract:x]
name = x
type = forbidden
source_modules = chassis
forbidden_modules = {forbidden}
"""
WEB = """from typing import TYPE_CHECKING

import fastapi

if TYPE_CHECKING:
    import chassis.http
"""


def write(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def service(
    folder: Path, package: str, *, external: bool = True, guarded: bool = False, forbidden: str = "fastapi"
) -> str:
    """Make a service without a chassis of its own."""
    service = folder / package
    write(service / f"src/{package}/__init__.py")
    text = CONTRACTS.format(package=package, external=external, guarded=guarded, forbidden=forbidden)
    write(service / ".importlinter", text)
    (service / "chassis").symlink_to(folder / "release")
    return str(service)


def release(folder: Path) -> None:
    for module, text in {"__init__": "", "web": WEB, "http": ""}.items():
        write(folder / f"release/src/chassis/{module}.py", text)


def statuses(*services: str) -> list[int]:
    done = subprocess.run([sys.executable, "-I", LINTING, *services], capture_output=True, check=True)
    return [status for status, _ in json.loads(done.stdout)]


def test_a_service_that_leaves_packages_of_others_out_hides_no_import_of_the_next_service(tmp_path: Path) -> None:
    release(tmp_path)
    kept = service(tmp_path, "first", external=False, forbidden="first")
    assert statuses(kept, service(tmp_path, "second")) == [0, 1]


def test_a_service_that_leaves_imports_for_types_out_hides_no_import_of_the_next_service(tmp_path: Path) -> None:
    release(tmp_path)
    kept = service(tmp_path, "first", guarded=True, forbidden="first")
    broken = service(tmp_path, "second", forbidden="chassis.http")
    contract = Path(broken, ".importlinter")
    contract.write_text(contract.read_text().replace("source_modules = chassis\n", "source_modules = chassis.web\n"))
    assert statuses(kept, broken) == [0, 1]


def test_modules_of_a_service_that_is_called_chassis_are_no_modules_of_the_release(tmp_path: Path) -> None:
    release(tmp_path)
    own = service(tmp_path, "chassis", forbidden="sqlalchemy")
    write(Path(own, "src/chassis/web.py"))
    assert statuses(own, service(tmp_path, "second")) == [0, 1]


def test_a_service_is_judged_by_its_own_imports_if_an_earlier_service_has_the_same_modules(tmp_path: Path) -> None:
    release(tmp_path)
    services = [service(tmp_path, name, forbidden="sqlalchemy") for name in ("first", "second", "third")]
    for one in services:
        contract = Path(one, ".importlinter")
        contract.write_text(
            contract.read_text().replace("source_modules = chassis\n", f"source_modules = {Path(one).name}\n")
        )
        write(Path(one, f"src/{Path(one).name}/main.py"), f"from {Path(one).name} import other\n")
        write(Path(one, f"src/{Path(one).name}/other.py"))
    write(Path(services[2], "src/third/main.py"), "from third import other\nimport sqlalchemy\n")
    assert statuses(*services) == [0, 0, 1]


def test_a_service_is_judged_by_its_own_contracts_if_an_earlier_service_has_the_same_imports(tmp_path: Path) -> None:
    release(tmp_path)
    kept = service(tmp_path, "first", forbidden="first")
    assert statuses(kept, service(tmp_path, "second", forbidden="second"), service(tmp_path, "third")) == [0, 0, 1]
