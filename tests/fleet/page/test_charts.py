"""The charts of a history with unusual days, without a browser."""

from datetime import timedelta

from fleet.history.days import Day, Entry
from fleet.page.charts import MOST_POINTS, charts
from fleet.service.waivers import today


def day(ago: int, entry: Entry) -> Day:
    return Day(today() - timedelta(ago), {"v1.0.0": today() - timedelta(200)}, {"billing": entry})


def test_a_long_history_shows_weeks_and_a_last_day_without_a_readable_service_is_no_fault() -> None:
    days = [day(ago, Entry("in order", "v1.0.0")) for ago in range(MOST_POINTS + 10, 0, -1)]
    lost = day(0, Entry("unreadable"))
    states, adoption, *_ = charts([*days, lost])
    assert len(states.rows) < 20
    assert states.rows[0] == (str(today()), "0", "1")
    assert adoption.rows == (("v1.0.0", str(today() - timedelta(200)), "100%", "at most 100 days"),)
    only = [*(day(ago, Entry("unreadable")) for ago in range(MOST_POINTS + 10, 3, -1)), days[-3], lost]
    assert "Adoption of releases" in [chart.title for chart in charts(only)]


def test_a_history_without_releases_or_services_has_charts_of_zeros() -> None:
    empty = [Day(today() - timedelta(ago), {}, {}) for ago in (1, 0)]
    assert [chart.title for chart in charts(empty)] == [
        "Services in order",
        "Conventions that fail",
        "Drift",
        "Waivers",
    ]
    assert charts(empty[:1]) == []
