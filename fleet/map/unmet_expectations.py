"""Compare the schemas of a message at its sender and its receiver, and describe the gaps in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.schemas.containment import Gap, gaps

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class UnmetExpectation:
    """An expectation of the receiver. `sure`: the receiver refuses some message; otherwise the schemas do not show this."""

    field: str
    what: str
    sure: bool = True

    def __str__(self) -> str:
        return f"{self.field or 'the message'} {self.what}"


def find_unmet(expected: Schema, sent: Schema) -> list[UnmetExpectation]:
    """Find what the sender may send and the receiver does not expect."""
    return [UnmetExpectation(gap.field, _what(gap), gap.sure) for gap in gaps(sent, expected)]


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
            return "is sent, and the receiver refuses unknown fields"
        case "judgement":
            return f"cannot be compared: {gap.read}"
        case keyword if gap.sure:
            return f"has {keyword} {'unset' if gap.written is None else gap.written}, expected {gap.read}"
        case keyword if gap.written is None:
            return f"has no {keyword}, expected one"
        case keyword:
            return f"has another {keyword}"
