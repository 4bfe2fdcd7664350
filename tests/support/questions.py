"""The questions of copier.yml."""

from functools import cache
from typing import Any

import yaml

from tests.support.paths import ROOT


@cache
def questions() -> dict[str, dict[str, Any]]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!include", lambda loader, node: None)
    parts = yaml.load_all((ROOT / "copier.yml").read_text(), Loader)
    return {name: question for part in parts for name, question in part.items() if not name.startswith("_")}
