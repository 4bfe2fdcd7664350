"""psql gets the address of the service's database, and no password that other users could read."""

import os

import pytest
from chassis.dev import psql


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://shop:a%3Db@127.0.0.1:5432/shop", "postgresql://shop@127.0.0.1:5432/shop"),
        (
            "postgresql://shop@one,two:5433/shop?password=a%3Db&sslmode=require",
            "postgresql://shop@one,two:5433/shop?sslmode=require",
        ),
        ("postgresql:///shop?host=%2Frun%2Fpostgresql&password=a%3Db", "postgresql:///shop?host=%2Frun%2Fpostgresql"),
    ],
)
def test_psql_gets_the_address_in_its_arguments_and_the_password_in_its_environment(
    url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    psql.run(url, ["-c", "SELECT 1"])
    ((program, arguments, environment),) = calls
    assert arguments == [program, address, "-c", "SELECT 1"]
    assert environment["PGPASSWORD"] == "a=b"
