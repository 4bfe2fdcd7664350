"""psql gets the address of the service's database, and no password that other users could read."""

import os
from argparse import Namespace

import pytest
from chassis.dev import psql
from chassis.service import Service
from chassis.settings import CommandSettings
from pydantic import SecretStr


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
    service: Service, url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    psql.run(service, CommandSettings(database_url=SecretStr(url)), Namespace(arguments=["-c", "SELECT 1"]))
    ((program, arguments, environment),) = calls
    assert arguments == [program, address, "-c", "SELECT 1"]
    assert environment["PGPASSWORD"] == "a=b"
