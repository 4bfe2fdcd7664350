"""Identify the inputs of a file that is rendered for the team, without rendering the file.

The content of such a file matters to an update only, and there only if the content differs between two versions. Rendering takes far
longer than reading the texts, so a manifest has a digest of the inputs in the place of the content's id: equal digests make equal
files. Different digests may make equal files too, so the caller compares the files.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

# No id of git begins like this, so a digest is never mistaken for the id of a content.
MARK = "inputs "

# A tag that loads another file of the template. The second group has the name of the file, if a name is all that the tag has.
_LOADING = re.compile(
    r"""\{%[-+]?\s*(?:extends|from|import|include)\b"""
    r"""(?:\s*(["'])([^"'\\]*)\1(?=\s*[-+]?%\}|\s+(?:as|ignore|import|with|without)\b))?"""
)


class _Inputs(NamedTuple):
    """The names of a file and of the files that it loads, and a digest of their texts.

    They are incomplete if the content also follows from something else, such as a file with a computed name.
    """

    names: list[str]
    digest: str
    is_complete: bool


def digest(template: Path, name: str, variables: str, commit: str) -> str:
    """Identify what the file `name` of the template, whose version is `commit`, is rendered from."""
    inputs = _inputs(template, name)
    return MARK + digest_of(inputs.digest, variables, "" if inputs.is_complete else commit)


def digest_of(*parts: str) -> str:
    """Identify these texts."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:40]


def loaded_files(template: Path, name: str) -> list[str]:
    """Return the file `name` of the template, and the files that it loads, directly or through others."""
    return _inputs(template, name).names


@cache
def _inputs(template: Path, name: str) -> _Inputs:
    texts: dict[str, str] = {}
    names, is_complete = [name], True
    while names:
        if (one := names.pop()) in texts:
            continue
        file = template / one
        texts[one] = text = file.read_bytes().decode(errors="surrogateescape") if file.is_file() else ""
        loaded = [found[2] for found in _LOADING.finditer(text)]
        # Copier's own variables have the version in them.
        is_complete &= None not in loaded and "_copier_" not in text
        names += [found for found in loaded if found is not None]
    return _Inputs(list(texts), digest_of(repr(sorted(texts.items()))), is_complete)
