"""Find services that may belong to their only neighbour: one owner, few commits, always the same partner."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from statistics import median

from fleet.boundaries.decision import TEAM
from fleet.boundaries.past import Past
from fleet.boundaries.questions import MOST_EVIDENCE, Evidence, Question, records, trend
from fleet.map.model import Map

YEAR = timedelta(days=365)
FEW = 12
"""A service with more commits in a year than this, one a month, is not asked about."""

ASK = (
    "What does the service of its own buy today: does anybody deploy it alone, or scale it alone? If not, what would it cost to make "
    "it a module of its neighbour, and what would the on-call duty save?"
)


def merges(map_: Map, pasts: Mapping[str, Past], window: tuple[date, date]) -> Iterator[Question]:
    """Find the candidates. Two services that qualify for each other make one question."""
    since = window[1] - YEAR
    commits = {name: [one for one in past.code if one.day > since] for name, past in pasts.items()}
    usual = median(map(len, commits.values())) if commits else 0
    asked: set[frozenset[str]] = set()
    for name, past in pasts.items():
        partner = _only_partner(map_, name)
        is_old = past.begin <= since
        if not partner or partner not in pasts or not is_old or len(commits[name]) > FEW:
            continue
        pair = frozenset((name, partner))
        if not past.owner or past.owner != pasts[partner].owner or pair in asked:
            continue
        asked.add(pair)
        yield Question(
            "boundary-merge",
            (name, partner),
            f"{name} had {len(commits[name])} commits to its code in the last year, {past.owner} owns it and {partner}, and it has no "
            "other neighbour",
            f"half of the services had more than {usual:g} commits; at most {FEW} count as few",
            ASK,
            tuple(
                (Evidence(name, one.day.isoformat(), one.commit[:10], one.what),)
                for one in commits[name][-MOST_EVIDENCE:]
            ),
            trend((one.day for one in past.code if one.day >= window[0]), *window),
            records((past, pasts[partner]), TEAM),
        )


def _only_partner(map_: Map, name: str) -> str:
    """Return the only service that this one calls, or is called by, or exchanges messages with; empty if there are more."""
    ends = {
        end
        for edge in map_.edges
        if not edge.is_open and name in (edge.source, edge.target)
        for end in (edge.source, edge.target)
    }
    others = ends - {name}
    return next(iter(others)) if len(others) == 1 else ""
