"""Format the state of the fleet as HTML files, each of which needs no network, no other files and no server."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import Version

from fleet.boundaries.boundaries import Report
from fleet.boundaries.show import describe_record
from fleet.cache import offline, write_atomically
from fleet.campaign.progress import Progress
from fleet.check.standing import Standing
from fleet.conventions import Convention
from fleet.history.changes import changes
from fleet.history.days import Day
from fleet.output import count, visible
from fleet.page.boundaries import boundaries_of
from fleet.page.campaigns import headline, shown
from fleet.page.charts import charts
from fleet.page.faults import Fault, broken_by
from fleet.page.parts import digest, environment, part
from fleet.page.rows import STATES, Row, rows, urgency
from fleet.page.steps import Rule, rules, steps
from fleet.page.teams import FILE, Team, teams
from fleet.service.waivers import today
from fleet.status.show import place, summary
from fleet.template.release import as_version

INDEX = "index.html"


@dataclass(frozen=True)
class Content:
    """The content of a page. `graph` is a section of trusted HTML, with an SVG that fleet made.

    `days` are the history, oldest first, and `kinds` the kinds of forges by host. `notes` are what the run has reported.
    """

    standings: Sequence[Standing]
    conventions: Sequence[Convention]
    graph: str = ""
    days: Sequence[Day] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    campaigns: Sequence[Progress] = ()
    # The questions about boundaries, if they were asked for, and the services' own names by their names in fleet.toml.
    boundaries: Report | None = None
    own_names: Mapping[str, str] = field(default_factory=dict)
    # The errors of the map, with the words that name the services.
    faults: Sequence[Fault] = ()
    generated: datetime = field(default_factory=lambda: datetime.now(UTC))


def page(content: Content) -> str:
    """Format one page for the whole fleet."""
    return _render(content, rows(content.standings, content.kinds), is_folder=False)


def write_pages(folder: Path, content: Content) -> None:
    """Write the page of the fleet as index.html, and a page for each owner. Remove the pages of owners without services."""
    ordered = rows(content.standings, content.kinds)
    owned = teams(ordered)
    texts = {INDEX: _render(content, ordered, is_folder=True)}
    for team in owned:
        names = [row.standing.name for row in team.rows]
        part = replace(
            content,
            standings=[row.standing for row in team.rows],
            days=[shown for day in content.days if (shown := day.of(names)).services],
            graph="",
            faults=[
                one for one in content.faults if {*one.names} & {content.own_names.get(name, name) for name in names}
            ],
        )
        texts[team.file] = _render(part, list(team.rows), is_folder=True, team=team)
    for name, text in texts.items():
        write_atomically(folder / name, visible(text))
    for file in folder.iterdir():
        if FILE.fullmatch(file.name) and file.name not in texts:
            file.unlink()


def _render(content: Content, ordered: list[Row], *, is_folder: bool, team: Team | None = None) -> str:
    standings = content.standings
    script = part("page.js") + (part("map.js") if content.graph else "")
    releases, traits = _releases(ordered), _traits(ordered)
    failing = rules(ordered, content.conventions)
    # The first of several services of one name in fleet.toml counts, as in the map.
    by_number = sorted(ordered, key=lambda row: row.number, reverse=True)
    named = {content.own_names.get(row.standing.name, row.standing.name): row for row in by_number}
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            content=content,
            team=team,
            is_folder=is_folder,
            index=INDEX,
            is_offline=offline(),
            today=today(),
            states=[one for one in STATES[::-1] if one in {"in order", *(row.word for row in ordered)}],
            summary=summary(list(standings)),
            rows=ordered,
            traits=traits,
            columns=("service", "state", *traits, "begin with", "rules", "version", "behind", "drift", "waivers"),
            steps=steps(ordered),
            unreadable=[row for row in ordered if row.standing.unreadable],
            releases=releases,
            behind=sum(bool(one.releases_behind) for one in standings),
            release_ranks={version: rank for rank, (version, _) in enumerate(reversed(releases))},
            newest=_newest(standings),
            teams=[] if team else teams(ordered),
            rules=failing,
            kept=[one for one in content.conventions if not any(one.id in row.heat for row in ordered)],
            heat=_heat(failing, ordered, content.conventions),
            explained={one.id for one in content.conventions},
            changes=changes(content.days[-2], content.days[-1]) if len(content.days) > 1 else [],
            charts=charts(content.days),
            campaigns=shown(content.campaigns, ordered),
            boundaries=boundaries_of(content.boundaries, named, ordered) if content.boundaries else None,
            named=named,
            broken={named[name].number: causes for name, causes in broken_by(content.faults).items() if name in named},
            headline=headline,
            describe_record=describe_record,
            style=part("page.css") + (part("map.css") if content.graph else ""),
            script=script,
            digest=digest(script),
            count=count,
            place=place,
            urgency=urgency,
        )
    )


def _traits(ordered: Sequence[Row]) -> dict[str, list[str]]:
    """Return the values of owner, domain and tier, as far as services have them."""
    found = {name: sorted({row.traits[name] for row in ordered}) for name in ("owner", "domain", "tier")}
    return {name: values for name, values in found.items() if any(values)}


def _releases(ordered: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the services by the version of the template that they have, the newest version first."""
    numbers = Counter(row.standing.version for row in ordered if row.standing.version)
    order = sorted(numbers, key=lambda one: (as_version(one) or Version("0"), one), reverse=True)
    return [(version, [row for row in ordered if row.standing.version == version]) for version in order]


def _newest(standings: Sequence[Standing]) -> Standing | None:
    """Return a service that knows the newest release."""
    known = [one for one in standings if one.newest]
    return max(known, key=lambda one: as_version(one.newest) or Version("0"), default=None)


def _heat(found: Sequence[Rule], ordered: Sequence[Row], conventions: Sequence[Convention]) -> dict[str, str]:
    """Return the rules that services fail or have waived, the worst first, each with the reason."""
    reasons = {one.id: one.reason for one in conventions} | {one.id: one.reason for one in found}
    marked = [id_ for row in ordered for id_ in row.heat]
    return {id_: reasons.get(id_, "") for id_ in dict.fromkeys([*(one.id for one in found), *marked])}
