"""Every path has exactly one owner, fleet and Copier agree on the owner, and a file of the platform is marked as such."""

from pathlib import Path

import pytest
import yaml
from copier._main import Worker

from fleet.template.ownership import LIST, Owner, Ownership
from tests.fleet.services import Born, contents
from tests.support.answers import EACH_NAME, VARIANTS
from tests.support.paths import ROOT

# Formats without comments. chassis/ is marked as a whole, by its pyproject.toml.
NO_COMMENTS = (".json", ".typed", ".python-version")


@pytest.mark.slow
@pytest.mark.parametrize("variant", EACH_NAME)
def test_every_path_of_every_variant_has_one_owner_and_the_platforms_say_so(born: Born, variant: str) -> None:
    service = contents(born(**VARIANTS[variant]))
    ownership = Ownership.of(ROOT)
    is_team_owned = Worker._path_matcher(None, yaml.safe_load((ROOT / LIST).read_text()))  # ty: ignore[invalid-argument-type]
    for path, content in service.items():
        assert (ownership.owner_of(path) is Owner.TEAM) == is_team_owned(Path(path)), path
        is_marked = b"Platform-owned" in b"".join(content.splitlines()[:2])
        has_comments = not path.endswith(NO_COMMENTS) and path != ".copier-answers.yml"
        if ownership.owner_of(path) is Owner.PLATFORM and has_comments:
            assert is_marked or path.startswith("chassis/"), path
        else:
            assert not is_marked, path
    assert b"Platform-owned" in service["chassis/pyproject.toml"]


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("src/billing/main.py", Owner.TEAM),
        ("src/anything/at/all", Owner.TEAM),
        ("tests/api/test_invoices.py", Owner.TEAM),
        ("README.md", Owner.TEAM),
        ("conventions.yml", Owner.TEAM),
        ("chassis/README.md", Owner.PLATFORM),
        ("chassis/src/chassis/http.py", Owner.PLATFORM),
        ("chassis/tests/test_http.py", Owner.PLATFORM),
        ("deploy/base/service.yaml", Owner.PLATFORM),
        ("deploy/overlays/production/kustomization.yaml", Owner.TEAM),
        ("Makefile", Owner.PLATFORM),
    ],
)
def test_a_pattern_has_the_meaning_that_the_list_describes(path: str, owner: Owner) -> None:
    assert Ownership.of(ROOT).owner_of(path) is owner
