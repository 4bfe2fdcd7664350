"""Decode the properties of a message, whatever another client has put into them.

pamqp raises an error for text that is not UTF-8 and for a time that Python does not know. aiormq then closes the
connection, and the same message arrives on the next connection, without end.
"""

from typing import Any

from pamqp import decode

UNREADABLE = "x-chassis-unreadable"
"""The only header of a message whose headers cannot be decoded. Its value is the reason."""


def install() -> None:
    """Replace pamqp's decoders, for the whole process."""
    decode.METHODS |= {"shortstr": _text, "table": _table, "timestamp": _time}
    decode.TABLE_MAPPING[b"T"] = _time


def _text(value: bytes) -> tuple[int, str]:
    end = 1 + value[0]
    return end, value[1:end].decode(errors="replace")


def _time(value: bytes) -> tuple[int, Any]:
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def _table(value: bytes) -> tuple[int, dict[str, Any]]:
    try:
        return decode.field_table(value)
    except (ValueError, OverflowError, IndexError, RecursionError) as error:
        return 4 + int.from_bytes(value[:4]), {UNREADABLE: f"the headers cannot be decoded: {error}"}
