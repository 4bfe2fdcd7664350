"""The panel of sagas: the latest of each service as a line of steps, and the decisions about parked sagas."""

from chassis.dev.viewer.panels import Panel

PANEL = Panel(
    "a saga",
    ("sagas", "list", "--state", "all", "--latest", "--limit", "20", "--format", "json"),
    {"retry": ("sagas", "retry"), "by-hand": ("sagas", "retry", "--by-hand"), "abandon": ("sagas", "abandon")},
)
