"""Schedule: the times at which the worker enqueues a job by itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


@dataclass(frozen=True)
class Schedule:
    """The due times of a job: a cron expression of five fields (`0 3 * * *`), by the clock of a time zone (Europe/Berlin).

    As in Debian's cron: where the clock skips the time of an expression, the job is due right after the gap; where
    the clock shows that time twice, the job is due once. Expressions whose minute or hour begins with `*` go on by the hour.
    Raises ValueError for an expression or a zone that does not exist.
    """

    cron: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if len(self.cron.split()) != 5:
            raise ValueError(
                f"the schedule {self.cron!r} has {len(self.cron.split())} fields: write the five fields of cron, as in 0 3 * * *"
            )
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"{self.zone!r} is no time zone of this machine: write a name of the IANA database, as in Europe/Berlin"
            ) from error
        try:
            self.next_after(datetime.now(UTC))
        except (CronSimError, StopIteration) as error:
            reason = str(error) or "no date fits it"
            raise ValueError(
                f"the schedule {self.cron!r} cannot be read ({reason}): write it as in 0 3 * * *"
            ) from error

    @property
    def rule(self) -> str:
        return f"{self.cron} {self.zone}"

    def next_after(self, moment: datetime) -> datetime:
        """Return the first due time after this moment, in UTC."""
        return next(due for due in self._times(moment) if due > moment)

    def last_until(self, moment: datetime) -> datetime:
        """Return the last due time up to this moment, in UTC."""
        last = next(due for due in self._times(moment + timedelta(seconds=1), reverse=True) if due <= moment)
        while (due := self.next_after(last)) <= moment:
            last = due
        return last

    def _times(self, moment: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        # The times are in UTC, because Python compares times of one zone by their local time, which repeats an hour in autumn.
        # For the same reason, the first times of CronSim may be on the wrong side of the moment.
        for due in CronSim(self.cron, moment.astimezone(ZoneInfo(self.zone)), reverse=reverse):
            yield due.astimezone(UTC)
