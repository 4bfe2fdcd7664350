"""The streams of JetStream: their names, and how a service creates and changes them.

Each service that owns names of messages has a stream for its events, which are kept for EVENT_RETENTION_HOURS, and a
stream for its jobs, which are kept until they are acknowledged.
"""

from typing import Any, NamedTuple

from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from chassis.brokers import BrokerUnavailable, Kind, Options, Topology, owner_of

DUPLICATE_SECONDS = 120
"""How long a stream knows the ids of its messages."""
ENSURE_ATTEMPTS = 10

STREAM_EXISTS = 10058


class Stream(NamedTuple):
    """The part of one stream that this service needs."""

    kind: Kind
    owner: str
    names: frozenset[str]


def stream_name(kind: Kind, owner: str) -> str:
    return f"{owner}-{kind}s"


def by_owner(names: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    owners = sorted(set(map(owner_of, names)))
    return [(owner, frozenset(name for name in names if owner_of(name) == owner)) for owner in owners]


def streams_of(topology: Topology) -> list[Stream]:
    events = topology.published_events | topology.awaited_events
    jobs = topology.sent_jobs | topology.accepted_jobs
    return [Stream(kind, *each) for kind, names in ((Kind.EVENT, events), (Kind.JOB, jobs)) for each in by_owner(names)]


async def ensure(jetstream: JetStreamContext, stream: Stream, options: Options, *, ours: frozenset[str]) -> None:
    """Create the stream, or add the missing names to it. Update its settings too if its owner is one of `ours`.

    Raises BrokerUnavailable and the errors of nats-py.
    """
    name = stream_name(stream.kind, stream.owner)
    settings = _settings(stream.kind, options)
    for _ in range(ENSURE_ATTEMPTS):
        try:
            found = (await jetstream.stream_info(name)).config
        except NotFoundError:
            retention = RetentionPolicy.LIMITS if stream.kind is Kind.EVENT else RetentionPolicy.WORK_QUEUE
            new = StreamConfig(name, subjects=sorted(stream.names), retention=retention, storage=StorageType.FILE)
            try:
                await jetstream.add_stream(new, **settings)
            except APIError as error:
                if error.err_code != STREAM_EXISTS:  # another service was faster
                    raise
            continue
        subjects = set(found.subjects or ())
        # A consumer may have created the stream with other settings: the owner's replace them. No copy is given up.
        copies = {"num_replicas": max(options.replication, found.num_replicas or 1)}
        wanted = settings | copies if stream.owner in ours else {}
        if stream.names <= subjects and all(getattr(found, setting) == value for setting, value in wanted.items()):
            return
        # The next round looks again: another service may be adding its names at the same time.
        await jetstream.update_stream(found, subjects=sorted(subjects | stream.names), **wanted)
    raise BrokerUnavailable(f"others keep changing the stream {name}")


def _settings(kind: Kind, options: Options) -> dict[str, Any]:
    retention_seconds = max(round(options.retention_seconds), 1)
    return {
        "max_age": retention_seconds if kind is Kind.EVENT else 0,  # 0: no limit
        "duplicate_window": min(DUPLICATE_SECONDS, retention_seconds) if kind is Kind.EVENT else DUPLICATE_SECONDS,
        "num_replicas": options.replication,
    }
