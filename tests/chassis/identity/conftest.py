"""The issuer of a test, and an application that trusts the issuer."""

import pytest
from fastapi import FastAPI

from tests.chassis.guarded import make
from tests.chassis.issuing import Issuer


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def app(issuer: Issuer) -> FastAPI:
    return make(issuer=issuer)
