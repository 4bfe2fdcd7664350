"""The contents of a generated service's image, and the layers that a change of the source rebuilds."""

import json
import shutil
from pathlib import Path

import pytest

from tests.delivery.image import contents
from tests.delivery.image.contents import Check, Contents, Expected
from tests.delivery.image.world import build
from tests.support.base_image import VERSION
from tests.support.engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("image")]


@pytest.fixture(scope="module")
def expected(engine: Engine, source: Path, image: str) -> Expected:
    return Expected.of(engine, source)


@pytest.fixture(scope="module")
def found(engine: Engine, image: str) -> Contents:
    return Contents.of(engine, image)


@pytest.mark.parametrize("check", contents.CHECKS, ids=lambda check: check.__name__)
def test_the_image(check: Check, found: Contents, expected: Expected) -> None:
    check(found, expected)


def test_the_list_of_packages_names_all_that_the_image_holds(
    engine: Engine, source: Path, image: str, expected: Expected
) -> None:
    command = ["run", "--rm", "--network", "none", "--entrypoint"]
    service = (source / "build/sbom.json").read_text()
    script = (source / "deploy/sbom.py").read_text()
    completed = json.loads(
        engine.docker(*command, "python", "--interactive", image, "-c", script, stdin=service).stdout
    )
    installed = engine.docker(*command, "dpkg-query", image, "--show", "--showformat=${Package}@${Version}\\n").stdout

    version = engine.docker(*command, "python", image, "--version").stdout.split()[1]

    debian = {f"{one['name']}@{one['version']}" for one in completed["components"] if "pkg:deb/" in one.get("purl", "")}
    assert debian == set(installed.split())
    assert len(debian) > 50
    assert f"pkg:generic/python@{version}" in [one.get("purl") for one in completed["components"]]
    listed = json.loads(service)["components"]
    shipped = [one for one in listed if contents.is_for_the_image(one)]
    assert completed["components"][: len(shipped)] == shipped
    assert {one["name"] for one in listed if one not in shipped} >= {"httpx2-jsfetch"}


PACKAGES = f"/opt/venv/lib/python{VERSION.rpartition('.')[0]}/site-packages"

# Instructions that break an image for one rule.
SPOILT: dict[str, tuple[Check, str]] = {
    "the user is root": (contents.runs_as_a_number_that_is_not_root, "USER 0:0"),
    "the user has a name": (contents.runs_as_a_number_that_is_not_root, "USER nobody"),
    "another port": (contents.names_the_port_that_it_listens_on, "EXPOSE 9000"),
    "a volume": (contents.writes_nowhere_but_in_tmp, "VOLUME /var/tmp"),
    "its own files": (contents.belongs_to_root, f"RUN chown --recursive 65532 {PACKAGES}/billing"),
    "a dev dependency": (
        contents.holds_what_its_bill_of_materials_says,
        f"RUN mkdir {PACKAGES}/pytest-9.2.0.dist-info",
    ),
    "a package less": (contents.holds_what_its_bill_of_materials_says, f"RUN rm -r {PACKAGES}/asyncpg-*.dist-info"),
    "uv": (contents.holds_no_compiler, "RUN cp /opt/venv/bin/uvicorn /opt/venv/bin/uv"),
    "a cache": (contents.adds_nothing_to_the_base_but_the_environment, "RUN mkdir -p /root/.cache/uv"),
    "lists of apt": (contents.adds_nothing_to_the_base_but_the_environment, "RUN touch /var/lib/apt/lists/debian"),
    "an older source": (contents.has_its_bytecode, f"RUN touch --date=2001-01-01 {PACKAGES}/billing/main.py"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_each_rule_notices_a_spoilt_image(name: str, engine: Engine, image: str, expected: Expected) -> None:
    """Only this rule notices the spoilt image."""
    check, instructions = SPOILT[name]
    before = () if "USER" in instructions else ("USER root",)
    after = () if "USER" in instructions else ("USER 65532:65532",)
    spoilt = Contents.of(engine, engine.derive("slipway-test:spoilt", image, *before, instructions, *after))
    assert broken(spoilt, expected) == [check]


def broken(found: Contents, expected: Expected) -> list[Check]:
    def breaks(check: Check) -> bool:
        try:
            check(found, expected)
        except AssertionError:
            return True
        return False

    return [check for check in contents.CHECKS if breaks(check)]


def test_a_change_of_the_source_makes_the_last_layer_anew_and_no_other(
    engine: Engine, source: Path, image: str, tmp_path: Path
) -> None:
    before, after = layers(engine, image), layers(engine, rebuilt(engine, source, tmp_path))
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


def test_a_source_that_is_copied_too_early_would_be_noticed(
    engine: Engine, source: Path, image: str, tmp_path: Path
) -> None:
    changed = shutil.copytree(source, tmp_path / "early")
    dockerfile = changed / "Dockerfile"
    instruction = "COPY --from=dependencies /opt/venv /opt/venv\n"
    assert instruction in dockerfile.read_text()
    dockerfile.write_text(dockerfile.read_text().replace(instruction, f"COPY src /src\n{instruction}"))
    before = layers(engine, build(engine, changed, "slipway-test:early"))
    after = layers(engine, rebuilt(engine, changed, tmp_path))
    assert after[:-1] != before[:-1]


def rebuilt(engine: Engine, source: Path, folder: Path) -> str:
    changed = shutil.copytree(source, folder / "changed")
    with (changed / "src/billing/main.py").open("a") as file:
        file.write("\n# A change.\n")
    return build(engine, changed, "slipway-test:changed")


def layers(engine: Engine, image: str) -> list[str]:
    return engine.inspect(image)["RootFS"]["Layers"]
