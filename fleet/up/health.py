"""Ask a service over HTTP whether it lives, and whether it is ready."""

import asyncio
import json
from typing import Any

SHOWN_ELSEWHERE = ("status", "version")


async def lives(port: int, seconds: float) -> bool:
    """Return whether /livez has no complaint. Raises OSError or ValueError if there is no usable answer."""
    status, _ = await ask(port, "/livez", seconds)
    return status < 500


async def why_unready(port: int, seconds: float) -> str:
    """Return why the service is not ready; empty if it is. Raises OSError or ValueError if there is no usable answer."""
    status, details = await ask(port, "/readyz", seconds)
    facts = details if isinstance(details, dict) else {}
    shown = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in SHOWN_ELSEWHERE)
    return "" if status == 200 else f"not ready: {shown}"


async def ask(port: int, path: str, seconds: float) -> tuple[int, Any]:
    """Send a GET request. Return the status and the JSON of the answer. Raises OSError or ValueError."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(2**16)
            while more := await reader.read(2**16):
                answer = (answer + more)[: 2**20]
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return int(head.split(b" ", 2)[1]) if head.count(b" ") > 1 else 0, json.loads(body)
    except RecursionError:
        raise ValueError("the answer nests too deeply") from None
