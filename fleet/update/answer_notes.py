"""The notes of an update about answers: the consequences that no file of the platform shows."""

from collections.abc import Iterator

from fleet.template.answers import aggregates_in
from fleet.template.manifest import Manifest
from fleet.template.release import Render


def answer_notes(before: Manifest, after: Render) -> list[str]:
    """Return a sentence for each changed aggregate, each dropped answer, and each answer that the update took by default."""
    return [*_about_aggregates(before, after.manifest), *(_about_questions(before, after) if after.data else ())]


def _about_aggregates(before: Manifest, after: Manifest) -> Iterator[str]:
    then, now = aggregates_in(before.answers), aggregates_in(after.answers)
    for name in sorted(then.keys() - now.keys()):
        yield f"{name} is no longer among the aggregates; its files are the team's and stay"
    for name in sorted(then.keys() & now.keys()):
        if then[name] != now[name]:
            yield f"{name} has other fields; its files are the team's: change them, and write a migration"


def _about_questions(before: Manifest, after: Render) -> Iterator[str]:
    """Compare the recorded answers. Copier drops the answer of a question that it no longer asks, and later asks it anew."""
    then, now = before.answers, after.manifest.answers
    for name in sorted(then.keys() - now.keys()):
        yield (
            f"{name}: {then[name]} is no longer recorded, because with the new answers nothing asks for it. To get it back later, "
            f"give it again: -d {name}={then[name]}"
        )
    for name in sorted(now.keys() - then.keys() - after.data.keys()):
        yield f"{name} is {now[name]}, by default: -d {name}=… gives another answer"
