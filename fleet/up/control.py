"""Commands of other processes to a run: one line of JSON over loopback, with the token from the private folder."""

import asyncio
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from fleet.errors import FleetError
from fleet.up.memory import Memory, write_private

Answer = Callable[[str, str], Awaitable[Any]]


async def serve(memory: Memory, answer: Answer) -> asyncio.Server:
    """Take commands until the server is closed. `answer(command, name)` may raise FleetError."""
    token = secrets.token_urlsafe(16)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            if not secrets.compare_digest(str(asked["token"]).encode(), token.encode()):
                return
            try:
                said = {"result": await answer(str(asked["command"]), str(asked["name"]))}
            except FleetError as error:
                said = {"error": str(error)}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            pass  # what arrived is no command of fleet, or the sender has gone
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    write_private(memory.control, {"port": server.sockets[0].getsockname()[1], "token": token})
    return server


def tell(memory: Memory, command: str, name: str = "") -> Any:
    """Send a command to the run of this folder, and return its result. Raises FleetError."""
    address = memory.running()
    if address is None:
        raise FleetError(f"no `fleet up` runs on {memory.folder}: start one, or name its fleet.toml by --config")
    try:
        with socket.create_connection(("127.0.0.1", address["port"])) as connection:
            line = json.dumps({"token": address["token"], "command": command, "name": name})
            connection.sendall(line.encode() + b"\n")
            with connection.makefile("rb") as file:
                said = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise FleetError(
            f"the `fleet up` of {memory.folder} does not answer: it ends now, or see {memory.folder}/up.log"
        ) from error
    if "error" in said:
        raise FleetError(said["error"])
    return said["result"]
