"""Publish to JetStream, and match its answers to the messages.

nats-py raises most refusals inside a callback of `publish_async`, where no caller can catch them. So this module matches the answers itself.
"""

import asyncio
import json
from itertools import count

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NoStreamResponseError

NO_RESPONDERS = "503"


class Publisher:
    """A publisher of any number of messages at a time over one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, tuple[str, asyncio.Future[None]]] = {}
        """Subject and future answer of each unanswered message, by the reply subject of the message."""

    async def start(self) -> None:
        await self._client.subscribe(f"{self._inbox}.*", cb=self._take)

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Return when a stream has stored the message. Raises errors of nats-py, and the error given to `forbid`."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = subject, answer
        try:
            await self._client.publish(subject, body, reply=reply, headers=headers)
            await answer
        finally:
            del self._waiting[reply]

    def forbid(self, subject: str, error: Exception) -> None:
        """Fail the messages to this subject: the server reports a missing permission by subject, not by message."""
        for waits_for, answer in self._waiting.values():
            if waits_for == subject and not answer.done():
                answer.set_exception(error)

    async def _take(self, message: Msg) -> None:
        _, answer = self._waiting.get(message.subject, (None, None))
        if answer is None or answer.done():
            return
        if (message.headers or {}).get("Status") == NO_RESPONDERS:
            answer.set_exception(NoStreamResponseError())
        elif b'"error"' in message.data:
            answer.set_exception(APIError(**json.loads(message.data)["error"]))
        else:
            answer.set_result(None)
