"""The text of an issue for each owner. A string of a repository is code in it, so that it is neither a command nor a mention."""

import re
from dataclasses import dataclass
from itertools import groupby

from fleet.campaign.progress import Part, Progress, State
from fleet.campaign.show import remaining
from fleet.output import count, visible

# The most characters that an issue shows of a string from a repository, and the most findings that it shows of one service.
MOST_CHARACTERS = 300
MOST_FINDINGS = 20

MENTION = re.compile(r"@[A-Za-z0-9][\w.-]*(/[\w.-]+)*", re.ASCII)
# Names by which a chat or a Git host calls everybody.
EVERYBODY = {"@all", "@channel", "@everyone", "@here"}


@dataclass(frozen=True)
class Issue:
    """An issue for one owner about services that have not reached the goal."""

    owner: str
    title: str
    body: str
    parts: tuple[Part, ...]

    @property
    def file_name(self) -> str:
        """The name of a file for the text: the owner in lower case, with hyphens for all but letters and digits."""
        return f"{re.sub('[^a-z0-9]+', '-', self.owner.lower()).strip('-') or 'no-owner'}.md"


def issues(progress: Progress) -> list[Issue]:
    """Write an issue for each owner whose services have not reached the goal, by the names of the owners."""
    parts = sorted(progress.open, key=lambda part: part.standing.owner)
    owners = groupby(parts, key=lambda part: part.standing.owner)
    return [issue(progress, owner, tuple(found)) for owner, found in owners]


def issue(progress: Progress, owner: str, parts: tuple[Part, ...]) -> Issue:
    """Write the issue for one owner about these services."""
    campaign = progress.campaign
    due = f"by **{campaign.by}** ({remaining(progress)})"
    who = mention(owner) if owner else "A team without a name in the answers"
    lines = [f"{who}: please let {'this service' if len(parts) == 1 else 'these services'} {campaign.goal}, {due}."]
    lines += ["", campaign.why] if campaign.why else []
    for part in parts:
        lines += ["", f"### {code(part.standing.name)}", "", *_steps(progress, part)]
    done = sum(part.state is State.DONE for part in progress.parts)
    lines += ["", f"Done: {done} of {count(len(progress.parts), 'service')}."]
    lines += [f"Questions: ask {campaign.ask}."] if campaign.ask else []
    return Issue(owner, title(progress), "\n".join(lines) + "\n", parts)


def title(progress: Progress) -> str:
    return f"{title_start(progress)} due {progress.campaign.by}"


def title_start(progress: Progress) -> str:
    """Return the beginning by which an issue of the campaign is found again, even if the day has changed."""
    return f"Campaign {progress.campaign.name}:"


def _steps(progress: Progress, part: Part) -> list[str]:
    if progress.campaign.version:
        return [f"- It is at {code(*part.missing)}. Run `make update`."]
    lines = []
    for finding in part.findings[:MOST_FINDINGS]:
        place = f"{code(f'{finding.path}:{finding.line}' if finding.line else finding.path)}: " if finding.path else ""
        lines.append(
            f"- {code(finding.id)}: {place}{code(finding.reason)}. Do: {code(finding.remedy or 'see the reason')}"
        )
    more = len(part.findings) - MOST_FINDINGS
    return lines + ([f"- {count(more, 'more finding')}: run `make conventions`."] if more > 0 else [])


def code(text: str) -> str:
    """Return a string of a repository as code of Markdown on one line, in which nothing is a link, a mention or HTML."""
    plain = visible(" ".join(text.split())).replace("`", "'")
    short = plain if len(plain) <= MOST_CHARACTERS else f"{plain[:MOST_CHARACTERS]}…"
    return f"`{short or '-'}`"


def mention(owner: str) -> str:
    """Mention an owner. A name that calls everybody, or that is no name of a team, is code."""
    return owner if MENTION.fullmatch(owner) and owner.lower() not in EVERYBODY else code(owner)
