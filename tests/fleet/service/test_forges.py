"""Links to a forge: the right page for each kind of forge, and none for a hostile address or path."""

from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.service.fleet_toml import forges
from fleet.service.forges import Forge, forge

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("https://github.com/shop/billing.git", f"https://github.com/shop/billing/blob/{COMMIT}/src/a.py#L3"),
        ("git@github.com:shop/billing.git", f"https://github.com/shop/billing/blob/{COMMIT}/src/a.py#L3"),
        ("https://token@github.com/shop/billing", f"https://github.com/shop/billing/blob/{COMMIT}/src/a.py#L3"),
        (
            "ssh://git@gitlab.example.com:2222/shop/team/billing.git",
            f"https://gitlab.example.com/shop/team/billing/-/blob/{COMMIT}/src/a.py#L3",
        ),
        (
            "http://gitea.example.com:3000/shop/billing.git",
            f"http://gitea.example.com:3000/shop/billing/src/commit/{COMMIT}/src/a.py#L3",
        ),
        ("https://codeberg.org/shop/billing/", f"https://codeberg.org/shop/billing/src/commit/{COMMIT}/src/a.py#L3"),
    ],
)
def test_a_line_of_a_file_has_a_link_by_the_pattern_of_its_forge(address: str, link: str) -> None:
    assert forge(address).link(COMMIT, "src/a.py", 3) == link


def test_a_host_of_an_unknown_kind_links_to_the_repository_only_until_fleet_toml_names_the_kind() -> None:
    address = "git@git.example.com:shop/billing.git"
    assert forge(address) == Forge("https://git.example.com/shop/billing")
    assert forge(address).link(COMMIT, "a.py") == ""
    known = forge(address, {"git.example.com": "gitlab"})
    assert known.link(COMMIT, "a.py") == f"https://git.example.com/shop/billing/-/blob/{COMMIT}/a.py"


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JavaScript://github.com/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "/srv/services/billing",
        'https://github.com/shop/billing"onclick="alert(1)',
        "https://github.com/shop/../../billing",
        "https://github.com/shop/billing?next=//evil.example",
        "https://github.com/shop/billing#<script>",
        "https://github.com\\@evil.example/shop",
        "https://github.com\n/shop/billing",
        "https://gith\u0443b.com/shop/billing",
        "https:///shop/billing",
        "ext::sh -c true",
    ],
)
def test_a_hostile_or_local_address_makes_no_link(address: str) -> None:
    assert forge(address) == Forge() or forge(address).kind == ""
    assert not forge(address).repository.lower().startswith(("javascript", "data", "file"))
    assert forge(address).link(COMMIT, "a.py") == ""


def test_a_path_is_quoted_and_a_path_that_leaves_the_repository_makes_no_link() -> None:
    at = forge("https://github.com/shop/billing")
    assert at.link(COMMIT, "a b/#1?\"'<.py").endswith("/a%20b/%231%3F%22%27%3C.py")
    assert at.link(COMMIT, "\udcff.py").endswith("/%3F.py")
    for path in ("../../evil", "a/../b", "/etc/passwd", "", "a//b"):
        assert at.link(COMMIT, path) == ""
    assert at.link("HEAD", "a.py") == ""


def test_fleet_toml_names_the_kinds_of_forges(tmp_path: Path) -> None:
    config = tmp_path / "fleet.toml"
    config.write_text('[forge]\n"Git.Example.com" = "gitea"\n')
    assert forges(config) == {"git.example.com": "gitea"}
    for wrong in ('[forge]\n"git.example.com" = "svn"\n', "forge = 1\n", "[forge]\na = []\n"):
        config.write_text(wrong)
        with pytest.raises(FleetError, match=r"has to have lines such as .* with github, gitlab, gitea; it is"):
            forges(config)
