"""Find faults between the senders and the receivers of messages."""

from collections.abc import Iterator

from fleet.check.findings import Finding, Level
from fleet.map.facts import Facts
from fleet.map.model import Edge, Kind, Map, MapFinding, find_misspelt_name
from fleet.map.unmet_expectations import UnmetExpectation, find_unmet
from fleet.processes.resource_limits import LimitExceeded, limit_resources
from fleet.service.asyncapi import SPEC, Message, path_of

SILENCE = "The listener waits for a message that never comes, and no error reports it."
PILE = "A job that no service processes stays in the broker until it expires, and its work is never done."
PARKED = "A message that its receiver cannot read is parked, and its work waits for a person."
DEAD = "Keeping an unused message compatible costs effort in every change."


def findings(map_: Map) -> Iterator[MapFinding]:
    unmet = compare(map_)
    for edge in (*map_.of(Kind.EVENT), *map_.of(Kind.JOB)):
        yield from [_without_end(map_, edge)] if edge.is_open else unfit(edge, unmet[edge])
    for service in map_.services.values():
        for message in service.messages:
            if message.kind == "event" and message.sent and not map_.receivers(message.name):
                reason = f"the service publishes {message.name}, which no service here listens to"
                remedy = "no change is needed if a service elsewhere listens; otherwise publish the event when a service needs it"
                yield MapFinding(
                    (service.name,), _of_line("map-event-unheard", message, reason, remedy, Level.WARNING, DEAD)
                )
            elif message.kind == "job" and message.received and not map_.senders(message.name):
                reason = f"the service processes {message.name}, which no service here sends"
                remedy = "no change is needed if a service elsewhere sends the job; otherwise remove the line"
                yield MapFinding(
                    (service.name,), _of_line("map-job-unasked", message, reason, remedy, Level.WARNING, DEAD)
                )


def _without_end(map_: Map, edge: Edge) -> MapFinding:
    """Report an event that no service publishes, or a job that no service processes."""
    is_event = edge.kind is Kind.EVENT
    id_, why = ("map-event-unpublished", SILENCE) if is_event else ("map-job-undone", PILE)
    acting, absent = (edge.target, edge.source) if is_event else (edge.source, edge.target)
    line = map_.message(acting, edge.name)
    reason = (
        f"the service listens to {edge.name}, which no service publishes"
        if is_event
        else f"the service sends {edge.name}, which no service processes"
    )
    level = Level.WARNING
    other = map_.services.get(absent)
    if absent in map_.unread:
        reason = f"{reason}, as far as is known: {absent} cannot be read"
        remedy = f"make {absent} readable first"
    elif other is None and (meant := find_misspelt_name(absent, (*map_.services, *map_.unread))):
        level = Level.ERROR
        reason = f"{reason}: no service {absent} is here, but {meant} is"
        remedy = f"correct the name to {meant}.{edge.name.partition('.')[2]}, or remove the line"
    elif other is None:
        reason = f"{reason}: no service {absent} is here"
        remedy = f"remove the line; no change is needed if {absent} is a system that is not listed here"
    elif other.is_silent:
        reason = f"{reason}, as far as is known: {absent} has no document of its messages"
        remedy = f"in {absent}: `make specs`, and commit specs/"
    else:
        level = Level.ERROR
        remedy = f"remove the line, or let {absent} {'publish' if is_event else 'process'} {edge.name}"
        if versions := _versions(other, edge):
            remedy = f"move to {' or '.join(versions)}, or let {absent} support this version in addition"
    services = tuple(dict.fromkeys((acting, absent))) if other else (acting,)
    return MapFinding(services, _of_line(id_, line, reason, remedy, level, why), (edge,))


def _versions(other: Facts, edge: Edge) -> list[str]:
    """Return the versions of the message that the service at the absent end has."""
    family = edge.name.rpartition(".v")[0]
    alike = [one for one in other.messages if one.name.rpartition(".v")[0] == family]
    return [one.name for one in alike if (one.sent if edge.kind is Kind.EVENT else one.received)]


def compare(map_: Map) -> dict[Edge, list[UnmetExpectation]]:
    """Compare the schemas of all messages. The messages of one sender together have the limits that a service has."""
    by_sender: dict[str, list[Edge]] = {}
    for edge in (*map_.of(Kind.EVENT), *map_.of(Kind.JOB)):
        if not edge.is_open:
            by_sender.setdefault(edge.source, []).append(edge)
    unmet: dict[Edge, list[UnmetExpectation]] = {}
    for sender, edges in by_sender.items():
        try:
            with limit_resources(f"comparing the schemas of the messages of {sender}"):
                for edge in edges:
                    unmet[edge] = _unmet(map_, edge)
        except LimitExceeded as error:
            unmet |= {
                edge: [UnmetExpectation("", f"is not compared: {error}", sure=False)]
                for edge in edges
                if edge not in unmet
            }
    return unmet


def _unmet(map_: Map, edge: Edge) -> list[UnmetExpectation]:
    sent, expected = map_.message(edge.source, edge.name), map_.message(edge.target, edge.name)
    try:
        return find_unmet(expected.schema(), sent.schema())
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        return [UnmetExpectation("", f"has an invalid schema: {type(error).__name__} {error}", sure=False)]


def unfit(edge: Edge, unmet: list[UnmetExpectation]) -> Iterator[MapFinding]:
    """Report a message that its receiver cannot read. The owner has to act: the publisher of an event, the receiver of a job."""
    is_event = edge.kind is Kind.EVENT
    id_, services = (
        ("map-event-unfit", (edge.source, edge.target)) if is_event else ("map-job-unfit", (edge.target, edge.source))
    )
    claim = f"the schema of {edge.name} at {edge.source} does not match the schema that {edge.target} expects"
    remedy = (
        "undo the change, and add a next version of the message; or deploy a receiver that expects the new schema, and "
        "this sender only after that"
    )
    for level in (Level.ERROR, Level.WARNING):
        details = [str(one) for one in unmet if one.sure is (level is Level.ERROR)]
        if details:
            start = claim if level is Level.ERROR else f"{claim}, or they cannot be compared"
            finding = Finding(id_, path_of(edge.name), f"{start}: {'; '.join(details)}", remedy, level, why=PARKED)
            yield MapFinding(services, finding, (edge,))


def _of_line(id_: str, message: Message, reason: str, remedy: str, level: Level, why: str) -> Finding:
    return Finding(id_, SPEC, reason, remedy, level, message.line, why)
