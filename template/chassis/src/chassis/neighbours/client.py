"""The client of one neighbour: each call has its limit, its repetitions and its bounds, however the call is made."""

import asyncio
import math
import random
from typing import Any

import httpx2
import stamina
from opentelemetry import metrics

from chassis.call_headers import IDEMPOTENCY_KEY, REQUEST_TIMEOUT
from chassis.client import ServiceClient
from chassis.deadline import remaining
from chassis.neighbours.budget import RetryBudget
from chassis.neighbours.failures import MAX_RETRY_AFTER_SECONDS, NeighbourTimeout, NeighbourUnavailable, retry_after
from chassis.neighbours.transport import STREAMED, BoundedTransport

SPARE_SECONDS = 0.02
"""The time before the deadline of a request that calls leave unused, so that this service can still answer in time."""
ATTEMPTS = 3
LONGEST_REASON = 300
"""The characters of a reason in logs: the text of an error may repeat 100 KB of an answer that breaks the protocol."""
IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"}
TEMPORARY = {429, 502, 503, 504}
"""The statuses with which a neighbour, or a proxy in front, says that it has not done its work."""
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
OUR_FAULTS = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)


class NeighbourClient(ServiceClient):
    """Bound each call, repeat it if that does no harm, and raise NeighbourUnavailable instead of an error of HTTPX2."""

    def __init__(self, name: str, transport: BoundedTransport, settings: Any, **options: Any) -> None:
        # A compressed answer could be of any size.
        super().__init__(transport=transport, headers={"Accept-Encoding": "identity"}, **options)
        self._name, self._attributes = name, {"slipway.neighbour": name}
        self._running, self._most_running = 0, settings.neighbour_calls_at_once
        self._budget = RetryBudget(settings.neighbour_retry_percent)
        count = metrics.get_meter("chassis").create_counter
        self._retries = count("slipway.neighbour.retries", "{call}", "Repeated calls.")
        self._refused = count("slipway.neighbour.refused", "{call}", "Calls and repetitions that were not sent.")

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        left = remaining()
        seconds = min(self.limit_of(request) or math.inf, math.inf if left is None else left - SPARE_SECONDS)
        if seconds <= 0:
            raise self._refusal("deadline", NeighbourTimeout(self._name, "no time is left", request))
        if self._running >= self._most_running:
            reason = f"{self._running} calls are running"
            raise self._refusal("concurrency", NeighbourUnavailable(self._name, reason, request))
        bound = None if seconds == math.inf else seconds
        # Half of the time is for connecting, so that some is left for another pod. Only a stream needs a limit of pauses:
        # the limit of the whole call ends with its head.
        pause = bound if stream else None
        phases = {"connect": bound and bound / 2, "read": pause, "write": pause, "pool": None}
        request.extensions = {**request.extensions, "timeout": phases, STREAMED: stream}
        self._budget.add()
        self._running += 1
        try:
            async with asyncio.timeout(bound) as limit:
                return await self._send_repeatedly(request, limit, stream=stream, **options)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise NeighbourTimeout(self._name, f"no complete answer within {seconds:.3g} s", request) from error
        finally:
            self._running -= 1

    async def _send_repeatedly(
        self, request: httpx2.Request, limit: asyncio.Timeout, **options: Any
    ) -> httpx2.Response:
        try:
            return await self._attempt(request, limit, **options)
        except NeighbourUnavailable as error:
            failure, failures = error, 0

        def pause(error: Exception) -> bool | float:
            nonlocal failures
            failures += 1
            return failures < ATTEMPTS and self._may_repeat(request, limit, error)

        # stamina costs time, so only a call that has failed uses it: its attempt number 1 is the failure above.
        bounds: Any = {"attempts": None, "timeout": None, "wait_initial": 0.05, "wait_max": 1, "wait_jitter": 0.05}
        async for attempt in stamina.retry_context(on=pause, **bounds):
            with attempt:
                if attempt.num == 1:
                    raise failure
                self._retries.add(1, self._attributes)
                return await self._attempt(request, limit, **options)
        raise failure

    def _may_repeat(self, request: httpx2.Request, limit: asyncio.Timeout, error: Exception) -> bool | float:
        """Return whether to repeat the call: a number is the seconds to wait first. Takes the repetition from the budget."""
        if not isinstance(error, NeighbourUnavailable) or not error.is_temporary:
            return False
        if error.is_sent and not (request.method in IDEMPOTENT or _has_key(request)):
            return False
        if not isinstance(request.stream, httpx2.ByteStream):  # a stream cannot be read again
            return False
        wait = error.retry_after_seconds * (1 + random.random() / 10)  # noqa: S311 (callers should not come back all at once)
        # MAX_RETRY_AFTER_SECONDS bounds the wait of a call without a time limit.
        ends = asyncio.get_running_loop().time() + wait
        if ends >= (limit.when() or math.inf) or error.retry_after_seconds > MAX_RETRY_AFTER_SECONDS:
            return False
        if not self._budget.take():
            self._refusal("budget", error)
            return False
        return wait or True

    async def _attempt(self, request: httpx2.Request, limit: asyncio.Timeout, **options: Any) -> httpx2.Response:
        left = (limit.when() or math.inf) - asyncio.get_running_loop().time()
        if left < math.inf:
            request.headers[REQUEST_TIMEOUT] = str(max(1, int(left * 1000)))
        try:
            response = await self.send_once(request, **options)
        except (NeighbourUnavailable, *OUR_FAULTS):
            raise
        except httpx2.HTTPError as error:
            # After a redirect, the error is that of another request, and this one has arrived.
            is_sent = not isinstance(error, UNSENT) or error.request is not request
            facts = {"is_sent": is_sent, "is_temporary": isinstance(error, httpx2.TransportError)}
            reason = f"{type(error).__name__} {error}"[:LONGEST_REASON]
            raise NeighbourUnavailable(self._name, reason, request, **facts) from error
        # A 409 with Retry-After: the neighbour still works on an earlier attempt with this key.
        is_busy = response.status_code == 409 and _has_key(request) and "Retry-After" in response.headers
        if is_busy or response.status_code in TEMPORARY:
            await response.aclose()
            wait = retry_after(response)
            reason = f"it answers {response.status_code}"
            raise NeighbourUnavailable(self._name, reason, request, retry_after_seconds=wait)
        return response

    def _refusal(self, reason: str, error: NeighbourUnavailable) -> NeighbourUnavailable:
        self._refused.add(1, {**self._attributes, "reason": reason})
        return error


def _has_key(request: httpx2.Request) -> bool:
    return request.method == "POST" and IDEMPOTENCY_KEY in request.headers
