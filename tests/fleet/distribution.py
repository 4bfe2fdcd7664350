"""A stand-in for an installed distribution."""

import json


class Installed:
    """A distribution with such a direct_url.json, in which an installer records the source of a package."""

    version = "0.1.0"

    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)
