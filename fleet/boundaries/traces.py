"""Find chatty pairs in recorded traces: lines of OTLP in JSON, or the store of a `fleet up` that runs.

The exporter `file` of the OpenTelemetry Collector writes such lines. Spans of one trace may be on several lines.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, NamedTuple

from fleet.boundaries.decision import DATA
from fleet.boundaries.log import short
from fleet.boundaries.past import Past
from fleet.boundaries.questions import MOST_EVIDENCE, Evidence, Question, records
from fleet.errors import FleetError

MOST_SPANS = 500_000
"""The most spans to read; this many take about 300 MiB of memory."""

MOST_LINE_BYTES = 32 * 2**20
MOST_FILE_BYTES = 4 * 2**30
SQLITE = b"SQLite format 3\0"

FEWEST_REQUESTS = 20
"""A caller with fewer recorded requests is not judged, because so few requests may be a coincidence."""

MANY_CALLS = 4
"""A pair is chatty if half of the requests that call the neighbour call it at least this many times."""

MOST_REQUESTS_CALL = 0.8
"""A service depends on a neighbour for nearly each request if at least this share of its requests calls the neighbour."""

WRITE = "write the file by the exporter `file` of the OpenTelemetry Collector, with `format: json`"


class Span(NamedTuple):
    """A span. `kind` is server where a service begins to answer a request, and consumer where it begins to handle a message."""

    trace: str
    id: str
    parent: str
    service: str
    kind: str


@dataclass(frozen=True)
class Traffic:
    """The requests that each service served, and the calls within them, by caller and called service."""

    spans: int
    requests: Mapping[str, int]
    calls: Mapping[tuple[str, str], Counter[tuple[str, str]]]


def read(file: Path) -> Traffic:
    """Read the calls between services. Raises FleetError if the file has no traces in a form that is known, or too many."""
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            if size > MOST_FILE_BYTES:
                raise FleetError(
                    f"{file} has {size >> 20:,} MiB, and fleet reads traces of up to {MOST_FILE_BYTES >> 20:,} MiB: keep a part of it"
                )
            is_store = opened.read(len(SQLITE)) == SQLITE
            opened.seek(0)
            spans = list(islice(_of_store(file) if is_store else _of_lines(file, opened), MOST_SPANS + 1))
    except OSError as error:
        raise FleetError(f"{file} cannot be read: {error.strerror}") from None
    if len(spans) > MOST_SPANS:
        raise FleetError(
            f"{file} has more than {MOST_SPANS:,} spans, which is more than fleet reads: keep a part of it"
        )
    if not spans:
        raise FleetError(f"{file} has no spans: {WRITE}")
    return _traffic(spans)


def _of_store(file: Path) -> Iterator[Span]:
    query = "SELECT trace, id, parent, json_extract(content, '$.service'), json_extract(content, '$.kind') FROM span"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            for trace, id_, parent, service, kind in database.execute(query):
                yield Span(str(trace), str(id_), str(parent or ""), str(service), str(kind).casefold())
    except sqlite3.DatabaseError as error:
        raise FleetError(f"{file} is not the store of `fleet up`, which is .fleet/page/viewer.db: {error}") from None


def _of_lines(file: Path, opened: BinaryIO) -> Iterator[Span]:
    number = 0
    while line := opened.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise FleetError(
                f"{file}, line {number} has more than {MOST_LINE_BYTES >> 20} MiB, and fleet reads shorter lines: send smaller batches"
            )
        if not line.strip():
            continue
        try:
            yield from _spans(json.loads(line))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            what = f"{type(error).__name__} {short(str(error).encode())}"
            raise FleetError(
                f"{file}, line {number} is not OTLP in JSON, with all of a batch on one line ({what}): {WRITE}"
            ) from None


KINDS = {2: "server", 5: "consumer", "SPAN_KIND_SERVER": "server", "SPAN_KIND_CONSUMER": "consumer"}
ENTRIES = ("server", "consumer")


def _spans(batch: dict[str, Any]) -> Iterator[Span]:
    """Yield the spans of one export request. Raises KeyError, TypeError or AttributeError for another structure."""
    for resource in batch["resourceSpans"]:
        attributes = (resource.get("resource") or {}).get("attributes") or []
        service = next((one["value"].get("stringValue", "") for one in attributes if one["key"] == "service.name"), "")
        for scope in resource.get("scopeSpans") or []:
            for one in scope.get("spans") or []:
                kind = KINDS.get(one.get("kind", 0), "")
                ids = (str(one[key]) for key in ("traceId", "spanId"))
                yield Span(*ids, str(one.get("parentSpanId") or ""), str(service), kind)


def _traffic(spans: Iterable[Span]) -> Traffic:
    """Count the calls within each request. A call is a server span whose parent is a span of another service."""
    known = {(one.trace, one.id): one for one in spans}  # an exporter that got no answer sends its spans again
    found: dict[tuple[str, str], str] = {}
    requests: Counter[str] = Counter()
    calls: dict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for one in known.values():
        requests[one.service] += one.kind in ENTRIES
        caller = known.get((one.trace, one.parent)) if one.kind == "server" else None
        if caller and caller.service != one.service:
            calls[caller.service, one.service][one.trace, _request(caller, known, found)] += 1
    return Traffic(len(known), requests, calls)


def _request(span: Span, known: Mapping[tuple[str, str], Span], found: dict[tuple[str, str], str]) -> str:
    """Return the id of the request that a span belongs to: the nearest span above it in which its service began work."""
    passed: dict[tuple[str, str], None] = {}
    request = ""
    at: Span | None = span
    while at is not None and at.service == span.service:
        key = at.trace, at.id
        request = found.get(key, at.id)
        if key in found or key in passed or at.kind in ENTRIES:
            break
        passed[key] = None
        at = known.get((at.trace, at.parent))
    found |= dict.fromkeys(passed, request)
    return request


def chatty(traffic: Traffic, pasts: Mapping[str, Past]) -> Iterator[Question]:
    """Find the pairs with many calls in one request, and the services that need a neighbour for nearly each request."""
    for (caller, called), found in sorted(traffic.calls.items()):
        served = max(traffic.requests.get(caller, 0), len(found))
        usual = median(found.values())
        is_chatty = len(found) >= FEWEST_REQUESTS and usual >= MANY_CALLS
        is_bound = served >= FEWEST_REQUESTS and len(found) >= MOST_REQUESTS_CALL * served
        if is_chatty or is_bound:
            yield _question(caller, called, served, found, traffic, pasts)


def _question(
    caller: str,
    called: str,
    served: int,
    found: Counter[tuple[str, str]],
    traffic: Traffic,
    pasts: Mapping[str, Past],
) -> Question:
    usual = [median(one.values()) for one in traffic.calls.values()]
    return Question(
        "boundary-chatty",
        (caller, called),
        f"{caller} called {called} in {len(found)} of {served} requests, half of them with {median(found.values()):g} calls or more, and at "
        f"most {max(found.values())}",
        f"half of the {len(usual)} pairs in {traffic.spans:,} spans have {median(usual):g} calls or fewer; {MANY_CALLS} calls in half of the "
        f"requests count as many, or calls in {MOST_REQUESTS_CALL:.0%} of at least {FEWEST_REQUESTS} requests; a file of sampled traces "
        "has only the traces that were chosen",
        f"What does {caller} fetch from {called} each time: could one call bring it, could {caller} keep a copy by events, or does the data "
        "belong to the caller?",
        tuple(
            (Evidence(caller, "", short(trace.encode()), f"{number} calls of {called} in one request"),)
            for (trace, _), number in found.most_common(MOST_EVIDENCE)
        ),
        None,
        records((pasts[name] for name in (caller, called) if name in pasts), DATA),
    )
