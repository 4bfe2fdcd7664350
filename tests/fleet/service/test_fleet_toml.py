"""fleet.toml: the services that it lists, and the messages for wrong entries."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import FleetError
from fleet.git.git import without_credentials
from fleet.policy.traits import Traits
from fleet.service.fleet_toml import Member, members, templates


def github(name: str, **more: Any) -> dict[str, Any]:
    """Return a repository as in `gh api /orgs/shop/repos`, without the fields that fleet ignores."""
    return {
        "name": name,
        "full_name": f"shop/{name}",
        "archived": False,
        "clone_url": f"https://github.com/shop/{name}.git",
        "ssh_url": f"git@github.com:shop/{name}.git",
        **more,
    }


def gitlab(path: str, **more: Any) -> dict[str, Any]:
    """Return a project as in GitLab's /groups/shop/projects."""
    return {
        "name": path.rpartition("/")[2].title(),
        "path_with_namespace": path,
        "archived": False,
        "http_url_to_repo": f"https://gitlab.example.com/{path}.git",
        "ssh_url_to_repo": f"git@gitlab.example.com:{path}.git",
        **more,
    }


def listed(folder: Path, saved: str, options: str = "") -> list[Member]:
    (folder / "shop.json").write_text(saved)
    (folder / "fleet.toml").write_text(f'[[listing]]\nfile = "shop.json"\n{options}\n')
    return members(folder / "fleet.toml")


def test_services_are_listed_by_url_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text("""
        [[service]]
        url = "git@git.example.com:shop/billing.git"
        branch = "stable"
        [[service]]
        path = "../orders"
        [[service]]
        url = "gh:shop/payments"
        name = "money"
    """)
    assert members(tmp_path / "fleet.toml") == [
        Member("billing", "git@git.example.com:shop/billing.git", "stable"),
        Member("orders", str(tmp_path.parent / "orders"), is_local=True),
        Member("money", "https://github.com/shop/payments"),
    ]


def test_the_traits_of_a_service_are_stated_for_the_service_or_for_a_listing(tmp_path: Path) -> None:
    (one,) = listed(tmp_path, json.dumps([github("billing")]), 'domain = "finance"\ntier = 1')
    assert one.traits == Traits(domain="finance", tier="1")
    entry = '[[service]]\npath = "orders"\n{} = {}\n'
    (tmp_path / "fleet.toml").write_text(entry.format("owner", '"@acme/shop"'))
    assert members(tmp_path / "fleet.toml")[0].traits == Traits("@acme/shop")
    for name, wrong in (("domain", '""'), ("tier", "true"), ("owner", '["a"]'), ("domain", '"a\\nb"')):
        (tmp_path / "fleet.toml").write_text(entry.format(name, wrong))
        with pytest.raises(FleetError, match=f"{name} has to be a text on one line"):
            members(tmp_path / "fleet.toml")


@pytest.mark.parametrize(
    "saved",
    [
        pytest.param(lambda pages: json.dumps([one for page in pages for one in page]), id="one array"),
        pytest.param(lambda pages: "\n".join(map(json.dumps, pages)), id="a page after the other"),
        pytest.param(json.dumps, id="an array of pages"),
    ],
)
def test_an_organisations_listing_is_read_in_every_saved_form(tmp_path: Path, saved: Any) -> None:
    pages = [[github("billing"), github("attic", archived=True)], [github("orders")]]
    assert listed(tmp_path, saved(pages)) == [
        Member("billing", "https://github.com/shop/billing.git"),
        Member("orders", "https://github.com/shop/orders.git"),
    ]


def test_names_are_included_and_excluded_by_patterns(tmp_path: Path) -> None:
    saved = json.dumps([github(name) for name in ("billing-service", "old-service", "website")])
    options = 'protocol = "ssh"\ninclude = ["*-service"]\nexclude = ["old-*"]'
    assert listed(tmp_path, saved, options) == [Member("billing-service", "git@github.com:shop/billing-service.git")]


def test_projects_of_gitlab_with_the_same_name_are_told_apart_by_their_groups(tmp_path: Path) -> None:
    saved = json.dumps([gitlab("shop/eu/billing"), gitlab("shop/us/billing"), gitlab("shop/orders")])
    assert [member.name for member in listed(tmp_path, saved)] == ["shop/eu/billing", "shop/us/billing", "orders"]


def test_a_service_that_is_named_and_listed_counts_once(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(json.dumps([github("billing"), github("orders")]))
    named = '[[service]]\nurl = "https://github.com/shop/billing.git"\nname = "money"\n'
    (tmp_path / "fleet.toml").write_text(f'{named}[[listing]]\nfile = "shop.json"\n')
    assert [member.name for member in members(tmp_path / "fleet.toml")] == ["money", "orders"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("a = [", "cannot be read"),
        (f"a = {'[' * 100_000}", "cannot be read: maximum recursion depth"),
        (f"a = {'1' * 10_000}", "cannot be read: Exceeds the limit"),
        ("", "lists no services"),
        ("[service]\nurl = 'x:y'", r"service is not a list: write \[\[service\]\]"),
        (
            "[[services]]\nurl = 'x:y'",
            r"the unknown key 'services': write template, \[\[service\]\], \[\[listing\]\] and \[forge\]",
        ),
        ("service = ['git@x:y']", r"service 1 is not a table: write \[\[service\]\]"),
        (
            "[[service]]\nurl = 'git@x:y'\nbranches = 'a'",
            "service 1 has the unknown key 'branches': write only branch, domain, name, owner, path, settings, tier, url",
        ),
        ("[[service]]\nname = 'a'", r"service 1 \(a\) needs either a url or a path: write one"),
        ("[[service]]\nurl = 'git@x:y'\npath = 'y'", r"service 1 \(git@x:y\) needs either .* remove one"),
        ("[[service]]\nurl = 3", "service 1 (.*): url has to be text"),
        ("[[service]]\nurl = '--upload-pack=x'", "not begin with a hyphen"),
        ("[[service]]\nurl = '/srv/billing'", "'/srv/billing' is not a git URL: a folder is written as path"),
        ("[[service]]\nurl = 'ext::sh -c x'", "is not a git URL"),
        ('[[service]]\nurl = "https://x/y\\u0000.git"', "url has to be text on one line"),
        ("[[service]]\npath = '~nobody-here/y'", "'~nobody-here/y' begins with the home folder of a user who does not"),
        ("[[service]]\npath = 'a'\n[[service]]\npath = 'a'", "/a is listed twice: remove one"),
        (
            "[[service]]\nurl = 'git@x:a/y'\n[[service]]\nurl = 'git@x:b/y'",
            "y is the name of two services: give one of them another `name`",
        ),
        ("[[listing]]\ninclude = ['a']", "listing 1 needs a file"),
        ("[[listing]]\nfile = 'gone.json'", r"listing 1 \(gone.json\) cannot be read: .*No such file"),
        ("[[listing]]\nfile = 'a.json'\ninclude = 'a'", r"listing 1 \(a.json\): include has to be a list of names"),
        ("[[listing]]\nfile = 'a.json'\nprotocol = 'git'", "protocol is 'git': write https or ssh"),
        ("[[listing]]\nfile = 'broken.json'", r"listing 1 \(broken.json\) cannot be read"),
        ("[[listing]]\nfile = 'deep.json'", r"listing 1 \(deep.json\) cannot be read: maximum recursion depth"),
        ("[[listing]]\nfile = 'nul.json'", "is neither a repository of GitHub nor"),
        ("[[listing]]\nfile = 'surrogate.json'", "is neither a repository of GitHub nor"),
        ("[[listing]]\nfile = 'error.json'", '"Not Found".* is neither a repository of GitHub nor .*: save the answer'),
    ],
)
def test_a_wrong_entry_is_named_with_its_remedy(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "nul.json").write_text(json.dumps(github("a\0b")))
    (tmp_path / "surrogate.json").write_text(json.dumps(github("a\ud800")))
    (tmp_path / "error.json").write_text('{"message": "Not Found", "status": "404"}')
    (tmp_path / "fleet.toml").write_text(written)
    with pytest.raises(FleetError, match=message) as error:
        members(tmp_path / "fleet.toml")
    assert str(error.value).startswith(str(tmp_path / "fleet.toml"))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"fleet\.toml does not exist: write one"):
        members(tmp_path / "fleet.toml")


def test_a_token_in_an_address_is_not_shown() -> None:
    member = Member("billing", "https://robot:secret@git.example.com/billing.git")
    assert member.shown_address == "https://git.example.com/billing.git"
    assert without_credentials("fatal: https://secret@x.org/a and https://y.org/b@c") == (
        "fatal: https://x.org/a and https://y.org/b@c"
    )


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("../slipway", "{parent}/slipway"),
        ("file:///srv/slipway", "/srv/slipway"),
        ("~/slipway", "{home}/slipway"),
        ("gh:acme/slipway", "gh:acme/slipway"),
    ],
)
def test_a_template_is_named_by_a_url_or_by_a_path_from_the_file(tmp_path: Path, named: str, address: str) -> None:
    config = tmp_path / "fleet" / "fleet.toml"
    config.parent.mkdir()
    config.write_text(f'template = "{named}"\n')
    [found] = templates(config)
    assert os.path.normpath(found) == address.format(parent=tmp_path, home=Path.home())
