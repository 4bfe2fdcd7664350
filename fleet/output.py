"""Print text for people. No character of a repository, a tag or a file name reaches the terminal as a command."""

import os
import re
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # importing rich would take longer than a check that finds its manifest in the cache
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult

from fleet.git.git import without_credentials

# Control characters except tab and line feed, and characters that reorder or hide text (Unicode's bidirectional marks).
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def visible(text: str) -> str:
    r"""Write control characters as Python does: an escape character becomes `\x1b`."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# The messages that this process has printed by `warn`, for a report that is read without stderr.
_WARNED: list[str] = []


def warn(message: str) -> None:
    """Print a message on stderr, without credentials of addresses in it."""
    text = visible(without_credentials(message))
    _WARNED.append(text)
    print(f"fleet: {text}", file=sys.stderr)  # noqa: T201


def reported() -> list[str]:
    """Return the messages of `warn` in this process, each of them once."""
    return list(dict.fromkeys(_WARNED))


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def escaped(text: str) -> str:
    """Escape a text for one line of Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", visible(" ".join(text.split())))


WIDE = 200
"""The width of a table in a file or a pipe, in columns: programs search lines, and do not find a text that is folded."""


def console(**options: Any) -> "Console":
    """Make a console that prints all text by `visible`, and keeps its own colours."""
    from rich.console import Console

    made = Console(highlight=False, **options)
    if options.get("width") is None and not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDE
    made.push_render_hook(cast("RenderHook", _Hook()))
    return made


class _Hook:
    def process_renderables(self, renderables: "list[ConsoleRenderable]") -> "list[ConsoleRenderable]":
        return [_Visible(one) for one in renderables]


class _Visible:
    def __init__(self, shown: "ConsoleRenderable") -> None:
        self._shown = shown

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        for segment in console.render(self._shown, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
