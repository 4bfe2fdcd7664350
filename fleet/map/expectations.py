"""Whether a receiver expects what a sender sends: the gaps between two schemas of one message, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.schemas.containment import Gap, gaps

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Unmet:
    """One expectation. `sure`: some message that may be sent will be refused; else that cannot be told from the schemas."""

    field: str
    what: str
    sure: bool = True

    def __str__(self) -> str:
        return f"{self.field or 'the message'} {self.what}"


def unmet(expected: Schema, sent: Schema) -> list[Unmet]:
    """What the sender may send but the receiver does not expect."""
    return [Unmet(gap.field, _what(gap), gap.sure) for gap in gaps(sent, expected)]


def _what(gap: Gap) -> str:
    match gap.keyword:
        case "type":
            return f"may be {gap.written}, expected {gap.read}"
        case "null":
            return f"may be null, expected {gap.read}"
        case "enum":
            sent = "anything" if gap.written is None else ", ".join(map(repr, gap.written))
            return f"may be {sent}, expected {', '.join(map(repr, gap.read))}"
        case "required":
            return f"is required, and {'may be missing' if gap.written else 'is not sent'}"
        case "closed":
            return "is sent, and the receiver takes no field that it does not know"
        case "judgement":
            return f"cannot be compared: {gap.read}"
        case keyword if gap.sure:
            return f"has {keyword} {'unset' if gap.written is None else gap.written}, expected {gap.read}"
        case keyword if gap.written is None:
            return f"has no {keyword}, expected one"
        case keyword:
            return f"has another {keyword}"
