"""What is wrong between those who send messages and those who take them."""

from collections.abc import Iterator

from fleet.check.findings import Finding, Level
from fleet.map.expectations import Unmet, unmet
from fleet.map.facts import Facts, Message
from fleet.map.model import Edge, Found, Kind, Map, misspelt
from fleet.service.asyncapi import SPEC, path_of

SILENCE = "It waits for something that never comes, and no error ever says so."
PILE = "A job that nobody takes lies in the broker until it is thrown away, and what was asked for is never done."
PARKED = "A message that its receiver cannot read is parked, and what was to follow waits for a person."
DEAD = "What nobody uses is kept compatible for nobody, at a cost in every change."


def findings(map_: Map) -> Iterator[Found]:
    for edge in (*map_.of(Kind.EVENT), *map_.of(Kind.JOB)):
        yield from [_without_end(map_, edge)] if edge.is_open else _unfit(map_, edge)
    for service in map_.services.values():
        for message in service.messages:
            if message.kind == "event" and message.sent and not map_.takers(message.name):
                reason = f"it publishes {message.name}, which no service here listens to"
                remedy = "nothing, if somebody elsewhere does; else publish it when somebody asks for it"
                yield Found(
                    (service.name,), _of_line("map-event-unheard", message, reason, remedy, Level.WARNING, DEAD)
                )
            elif message.kind == "job" and message.taken and not map_.senders(message.name):
                reason = f"it does {message.name}, which no service here asks for"
                remedy = "nothing, if somebody elsewhere does; else take the line away"
                yield Found((service.name,), _of_line("map-job-unasked", message, reason, remedy, Level.WARNING, DEAD))


def _without_end(map_: Map, edge: Edge) -> Found:
    """Nobody publishes the event, or nobody does the job."""
    is_event = edge.kind is Kind.EVENT
    id_, why = ("map-event-unpublished", SILENCE) if is_event else ("map-job-undone", PILE)
    acting, absent = (edge.target, edge.source) if is_event else (edge.source, edge.target)
    line = map_.message(acting, edge.name)
    reason = (
        f"it listens to {edge.name}, which nobody publishes"
        if is_event
        else f"it asks for {edge.name}, which nobody does"
    )
    level = Level.WARNING
    other = map_.services.get(absent)
    if absent in map_.unread:
        reason = f"{reason}, as far as is known: {absent} cannot be read"
        remedy = "mend that first"
    elif other is None and (meant := misspelt(absent, (*map_.services, *map_.unread))):
        level = Level.ERROR
        reason = f"{reason}: no service {absent} is here, but {meant} is"
        remedy = f"correct the name to {meant}.{edge.name.partition('.')[2]}, or take the line away"
    elif other is None:
        reason = f"{reason}: no service {absent} is here"
        remedy = f"take the line away; it is in order if {absent} is a system that is not listed here"
    elif other.is_silent:
        reason = f"{reason}, as far as {absent} says"
        remedy = f"in {absent}: `make specs`, and commit specs/"
    else:
        level = Level.ERROR
        remedy = f"take the line away, or have {absent} {'publish' if is_event else 'take'} it"
        if versions := _versions(other, edge):
            remedy = f"move to {' or '.join(versions)}, or have {absent} bring this version back beside it"
    services = tuple(dict.fromkeys((acting, absent))) if other else (acting,)
    return Found(services, _of_line(id_, line, reason, remedy, level, why), (edge,))


def _versions(other: Facts, edge: Edge) -> list[str]:
    """Of the same message, at its absent end."""
    family = edge.name.rpartition(".v")[0]
    alike = [one for one in other.messages if one.name.rpartition(".v")[0] == family]
    return [one.name for one in alike if (one.sent if edge.kind is Kind.EVENT else one.taken)]


def _unfit(map_: Map, edge: Edge) -> Iterator[Found]:
    """Who owns the message has to act: the publisher of an event, who does a job."""
    is_event = edge.kind is Kind.EVENT
    sent, expected = map_.message(edge.source, edge.name), map_.message(edge.target, edge.name)
    id_, services = (
        ("map-event-unfit", (edge.source, edge.target)) if is_event else ("map-job-unfit", (edge.target, edge.source))
    )
    says = f"{edge.name} as {edge.source} sends it is not what {edge.target} expects"
    remedy = (
        "put it back, and bring a next version beside it; or deploy a receiver that expects what is sent, and this "
        "sender only after that"
    )
    try:
        problems = unmet(expected.schema, sent.schema)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        problems = [Unmet("", f"has what is no schema: {type(error).__name__} {error}", sure=False)]
    for level in (Level.ERROR, Level.WARNING):
        told = [str(one) for one in problems if one.sure is (level is Level.ERROR)]
        if told:
            start = says if level is Level.ERROR else f"{says}, or that cannot be told"
            finding = Finding(id_, path_of(edge.name), f"{start}: {'; '.join(told)}", remedy, level, why=PARKED)
            yield Found(services, finding, (edge,))


def _of_line(id_: str, message: Message, reason: str, remedy: str, level: Level, why: str) -> Finding:
    return Finding(id_, SPEC, reason, remedy, level, message.line, why)
