"""Text of other people, made safe for a terminal."""

import json


def printable(text: str) -> str:
    """Escape every character that could control a terminal, as JSON escapes characters: `\\u001b` for Escape.

    That includes line breaks, and the marks that reverse the direction of text. JSON stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """Escape as `printable` does, except for line breaks."""
    return "\n".join(map(printable, text.split("\n")))
