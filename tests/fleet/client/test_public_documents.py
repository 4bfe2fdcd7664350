"""`fleet client` writes clients for two public services. Their API documents come from npm, and are not committed here."""

from importlib import import_module
from pathlib import Path

import pytest

from tests.fleet import command_line
from tests.support import npm
from tests.support.needs import BLOCKFROST_API, GITHUB_API
from tests.support.paths import ROOT

OPERATIONS = {
    "github": ("repos/get", "issues/list-for-repo", "pulls/create"),
    # Its document has no ids of operations.
    "blockfrost": ("get_blocks_latest", "get_accounts_stake_address", "get_addresses_address_utxos"),
}


@pytest.mark.slow
def test_three_operations_of_two_public_services_are_written_formatted_typed_and_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = {
        "github": npm.packed(GITHUB_API, "generated/api.github.com.json"),
        "blockfrost": npm.packed(BLOCKFROST_API, "openapi.yaml"),
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "src")
    (tmp_path / "src/public_calls").mkdir(parents=True)
    (tmp_path / ".copier-answers.yml").write_text("service_name: public-calls\n")
    (tmp_path / "ruff.toml").write_text((ROOT / "template/ruff.toml").read_text())
    for name, operations in OPERATIONS.items():
        command_line.run("client", name, *operations, "--from", str(documents[name]))
        module = import_module(f"public_calls.neighbours.{name}")
        functions = [operation.replace("/", "_").replace("-", "_") for operation in operations]
        assert all(callable(getattr(module, function)) for function in functions)
    command_line.check_code(tmp_path)
    command_line.run("client", "--check")
