"""Charts of the fleet's progress: small SVG drawings in the colours of the page, each with the table behind it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fleet.check.findings import Level
from fleet.history.adoption import ADOPTED, Adoption, adoptions
from fleet.history.days import Day
from fleet.output import count
from fleet.status.show import STATES

# Above this number of days, a chart shows the last day of each week.
MOST_POINTS = 90

# The releases whose adoption is drawn. The table has them all.
LINES = 4

LEFT, RIGHT, TOP, BOTTOM = 30, 8, 8, 18

SVG = """\
<svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ label }}">
{% for at, text in grid %}
<line class="grid" x1="{{ left }}" x2="{{ width - right }}" y1="{{ at }}" y2="{{ at }}"/><text x="{{ left - 5 }}" y="{{ at + 3.5 }}" text-anchor="end">{{ text }}</text>
{% endfor %}
{% for shape, series, path in paths %}
<path class="{{ shape }}" data-series="{{ series }}" d="{{ path }}"/>
{% endfor %}
<text x="{{ left }}" y="{{ height - 3 }}">{{ first }}</text><text x="{{ width - right }}" y="{{ height - 3 }}" text-anchor="end">{{ last }}</text>
</svg>
"""

_TEMPLATE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
    SVG
)


@dataclass(frozen=True)
class Frame:
    """The place of a drawing, in the units of its SVG, between two days."""

    first: date
    last: date
    width: int
    height: int

    def place(self, day: date) -> float:
        share = (max(day, self.first) - self.first) / (self.last - self.first)
        return round(LEFT + share * (self.width - LEFT - RIGHT), 1)

    def rise(self, share: float) -> float:
        return round(self.height - BOTTOM - share * (self.height - TOP - BOTTOM), 1)

    def path(self, days: Sequence[date], shares: Sequence[float]) -> str:
        points = zip(days, shares, strict=True)
        path = "M" + "L".join(f"{self.place(day)} {self.rise(share)}" for day, share in points)
        return path if len(days) > 1 else f"{path}h.1"  # a path of one point would be invisible, so it becomes a dot


@dataclass(frozen=True)
class Chart:
    """One chart. `legend` has the name of each series with the key of its colour. `rows` begin with the newest day."""

    title: str
    headline: str
    drawing: Markup
    legend: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_stacked: bool = False

    @property
    def body(self) -> Markup:
        """The rows of the table as HTML. The pages of two hundred owners have a quarter of a million cells."""
        rows = (map(escape, row) for row in self.rows)
        lines = (
            f'<tr><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in rest)}</tr>'
            for first, *rest in rows
        )
        return Markup("\n".join(lines))  # noqa: S704 (each cell is escaped)


def charts(days: Sequence[Day]) -> list[Chart]:
    """Draw the progress. A single day makes no chart."""
    points = _points(days)
    if len(points) < 2:
        return []
    adopted = adoptions(days)
    return [_states(points), *([_adoption(points, adopted)] if adopted else []), *_counts(points)]


def _points(days: Sequence[Day]) -> list[Day]:
    if len(days) <= MOST_POINTS:
        return list(days)
    return list({one.day.isocalendar()[:2]: one for one in days}.values())


def _states(points: list[Day]) -> Chart:
    series = {state: [_number_of(day, state) for day in points] for state in STATES if state != "unreadable"}
    series["unreadable"] = [_number_of(day, "unreadable") for day in points]
    series = {state: values for state, values in series.items() if any(values) or state == "in order"}
    orderly, total = series["in order"], [len(day.services) for day in points]
    change = _change(orderly[-1] - orderly[0], points[0].day)
    headline = f"{orderly[-1]} of {total[-1]} services are in order, {change}"
    return _stacked("Services in order", headline, points, series, is_wide=True)


def _number_of(day: Day, state: str) -> int:
    return sum(one.state == state for one in day.services.values())


def _counts(points: list[Day]) -> list[Chart]:
    levels = [level for level in Level if level is not Level.WAIVED]
    failed = [Counter(level for one in day.services.values() for level in one.failed.values()) for day in points]
    conventions = {level.value: [one[level.value] for one in failed] for level in levels}
    conventions = {key: values for key, values in conventions.items() if any(values) or key == "error"}
    drift = {"drift": [sum(one.drift for one in day.services.values()) for day in points]}
    waivers = {
        "live": [sum(one.waivers for one in day.services.values()) for day in points],
        "void": [sum(one.void for one in day.services.values()) for day in points],
    }
    kinds = (
        ("Conventions that fail", "failure", "; drift, lag and the map are not counted", conventions),
        ("Drift", "file", "", drift),
        ("Waivers", "waiver", "; a void waiver has expired or is malformed", waivers),
    )
    made = []
    for title, noun, note, series in kinds:
        totals = [sum(values) for values in zip(*series.values(), strict=True)]
        headline = f"{count(totals[-1], noun)}, {_change(totals[-1] - totals[0], points[0].day)}{note}"
        made.append(_stacked(title, headline, points, series))
    return made


def _change(difference: int, since: date) -> str:
    return f"{f'{difference:+d}'.replace('-', '−') if difference else 'unchanged'} since {_short(since)}"


def _frame(points: Sequence[Day], *, is_wide: bool) -> Frame:
    return Frame(points[0].day, points[-1].day, *((560, 150) if is_wide else (360, 132)))


def _stacked(
    title: str, headline: str, points: list[Day], series: dict[str, list[int]], *, is_wide: bool = False
) -> Chart:
    """Draw the series above each other, the first at the bottom."""
    top = _round_up(max(map(sum, zip(*series.values(), strict=True))))
    frame = _frame(points, is_wide=is_wide)
    at = [one.day for one in points]
    below = [0] * len(points)
    paths = []
    for name, values in series.items():
        above = [low + value for low, value in zip(below, values, strict=True)]
        there = frame.path(at, [value / top for value in above])
        back = frame.path(at[::-1], [value / top for value in below[::-1]]).replace("M", "L", 1)
        paths.append(("area", name, f"{there}{back}Z"))
        paths.append(("edge", name, there))
        below = above
    grid = [(frame.rise(part), str(round(top * part))) for part in (0, 0.5, 1)]
    drawing = _draw(f"{title}: {headline}", frame, grid, paths)
    rows = [(str(day.day), *(str(values[place]) for values in series.values())) for place, day in enumerate(points)]
    legend = tuple((name, name) for name in series) if len(series) > 1 else ()
    return Chart(title, headline, drawing, legend, ("day", *series), tuple(reversed(rows)), is_stacked=True)


def _adoption(points: list[Day], adopted: list[Adoption]) -> Chart:
    drawn = adopted[:LINES]
    shown = {one.day for one in points}
    frame = _frame(points, is_wide=True)
    paths = [("goal", "goal", f"M{LEFT} {frame.rise(ADOPTED)}H{frame.width - RIGHT}")]
    for number, one in reversed(list(enumerate(drawn))):
        shares = [(day, share) for day, share in one.shares if day in shown] or one.shares[-1:]
        paths.append(("line", f"release-{number}", frame.path(*zip(*shares, strict=True))))
    grid = [(frame.rise(part), f"{part:.0%}") for part in (0, ADOPTED, 1)]
    newest = adopted[0]
    age = count((frame.last - newest.published).days, "day")
    having = f"{newest.version} or later is at {newest.share:.0%} of {count(_readable(points[-1]), 'readable service')}"
    headline = f"{having} after {age}"
    headline += "".join(f"; {one.version} took {_days(one)} to {ADOPTED:.0%}" for one in adopted[1:2] if one.days)
    rows = [(one.version, str(one.published), f"{one.share:.0%}", _days(one) or "not yet") for one in adopted]
    return Chart(
        "Adoption of releases",
        headline,
        _draw(f"Adoption of releases: {headline}", frame, grid, paths),
        tuple((one.version, f"release-{number}") for number, one in enumerate(drawn)),
        ("release", "published", "share today", f"days until {ADOPTED:.0%}"),
        tuple(rows),
    )


def _readable(day: Day) -> int:
    return sum(one.is_readable for one in day.services.values())


def _days(one: Adoption) -> str:
    if one.days is None:
        return ""
    return f"{'at most ' if one.is_upper_bound else ''}{count(one.days, 'day')}"


def _draw(label: str, frame: Frame, grid: list[tuple[float, str]], paths: list[tuple[str, str, str]]) -> Markup:
    drawn = _TEMPLATE.render(
        label=label,
        grid=grid,
        paths=paths,
        first=_short(frame.first),
        last=_short(frame.last),
        width=frame.width,
        height=frame.height,
        left=LEFT,
        right=RIGHT,
    )
    return Markup(drawn)  # noqa: S704 (the environment has escaped what is not from here)


def _short(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _round_up(number: int) -> int:
    """Return an even top for the axis, so that its middle is a whole number."""
    step = max(10 ** (len(str(max(number, 1))) - 1) // 5, 2)
    return max(-(-number // step) * step, 2)
