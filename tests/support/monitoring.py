"""The alerts and the dashboard of a service: their rules, and the queries in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.prometheus import Series

MONITORING = "deploy/components/monitoring"


def rules(service: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((service / MONITORING).glob("alerts*.yaml")):
        for group in yaml.safe_load(path.read_text())["spec"]["groups"]:
            yield from group["rules"]


def dashboards(service: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((service / MONITORING).glob("dashboard*.json"))]


def queries(service: Path) -> dict[str, str]:
    """Return every query of alerts and dashboard, with the dashboard's variables filled in as by Grafana."""
    found = {
        f"{rule.get('alert') or rule['record']} {number}": rule["expr"] for number, rule in enumerate(rules(service))
    }
    for board in dashboards(service):
        constants = {one["name"]: one["query"] for one in board["templating"]["list"] if one["type"] == "constant"}
        for panel in board["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "5m")
                name = f"{panel['title']} {target['refId']}"
                found[name] = re.sub(r"\$(\w+)", lambda it, known=constants: known[it[1]], query)
    return found


def recorded(service: Path) -> set[Series]:
    return {Series(rule["record"], tuple(rule["labels"].items())) for rule in rules(service) if "record" in rule}
