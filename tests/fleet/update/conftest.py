"""The subject of the tests in this folder is the update, and not the renderer."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def renders(rendered_once: object) -> None:
    """Render each version once for each set of answers."""
