"""Print the progress of campaigns: a table for people, JSON for programs."""

import json
from collections import Counter

from rich.table import Table
from rich.text import Text

from fleet import output
from fleet.campaign.progress import Part, Progress, State
from fleet.output import count

STYLES = {
    State.DONE: "green",
    State.OPEN: "yellow",
    State.WAIVED: "dim",
    State.OFF: "dim",
    State.UNREADABLE: "red",
}


def table(progress: Progress, *, width: int | None = None) -> str:
    """Format one campaign: a line about the whole, then a row for each service, open ones first."""
    console = output.console(width=width, no_color=True if width else None)
    shown = Table("service", "state", "owner", "missing", box=None, pad_edge=False)
    for part in sorted(progress.parts, key=lambda one: one.state is State.DONE):
        cells = (part.standing.name, part.state.value, part.standing.owner, _missing(part))
        shown.add_row(*(Text(cell, overflow="fold") for cell in cells), style=STYLES[part.state])
    with console.capture() as printed:
        console.print(Text(sentence(progress)), soft_wrap=True)
        if progress.campaign.why:
            console.print(Text(progress.campaign.why), soft_wrap=True)
        if progress.parts:
            console.print(shown)
    return printed.get()


def sentence(progress: Progress) -> str:
    """Return the campaign and its progress in one line."""
    campaign, states = progress.campaign, Counter(part.state for part in progress.parts)
    done = f"{states[State.DONE]} of {count(len(progress.parts), 'service')} done"
    others = [f"{states[state]} {state}" for state in State if states[state] and state is not State.DONE]
    return f"{campaign.name}: {campaign.goal}, by {campaign.by} ({remaining(progress)}): {', '.join([done, *others])}"


def remaining(progress: Progress) -> str:
    """Return how many days are left, or how many have passed since the day."""
    days = (progress.campaign.by - progress.day).days
    return f"{count(days, 'day')} left" if days >= 0 else f"{count(-days, 'day')} late"


def as_json(campaigns: list[Progress]) -> str:
    return json.dumps({"campaigns": [_written(one) for one in campaigns]}, indent=2) + "\n"


def _written(progress: Progress) -> dict[str, object]:
    campaign = progress.campaign
    return {
        "name": campaign.name,
        "goal": campaign.goal,
        "why": campaign.why,
        "ask": campaign.ask,
        "by": str(campaign.by),
        "day": str(progress.day),
        "is_late": progress.is_late,
        "services": [
            {
                "name": part.standing.name,
                "owner": part.standing.owner,
                "domain": part.standing.domain,
                "tier": part.standing.tier,
                "state": part.state,
                "missing": part.missing,
            }
            for part in progress.parts
        ],
    }


def _missing(part: Part) -> str:
    return part.standing.unreadable or ", ".join(part.missing)
