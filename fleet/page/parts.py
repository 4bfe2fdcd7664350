"""The parts that all pages share: the files of this folder, the environment of the templates, and the digest of a script."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape


@cache
def environment() -> Environment:
    """Return Jinja's environment for the templates in this folder. It escapes every inserted text."""
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(part),
    )
    made.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    made.filters["code"] = _mark_code
    return made


def _mark_code(text: str) -> Markup:
    """Mark what stands between two backticks as code, after everything was escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def part(name: str) -> str:
    """Return the text of a file in this folder."""
    return files("fleet.page").joinpath(name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """Return the digest for the policy of a page: the browser runs no other script, even if a service's text became HTML."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
