"""Commands for a run of `fleet up`: show its state, act on a service, show a log, end the run."""

import fcntl
import os
import time
from pathlib import Path

from fleet.errors import FleetError
from fleet.output import console, visible
from fleet.up import control, show
from fleet.up.memory import FOLDER, Memory
from fleet.up.output import readable

STEP_SECONDS = 0.2
DOWN_SECONDS = 60


def memory(config: Path) -> Memory:
    """Return the folder next to fleet.toml, where the run keeps its data."""
    return Memory(config.resolve().parent / FOLDER)


def status(memory: Memory, *, as_json: bool) -> bool:
    """Print the state of the run of this folder. Return whether all services are ready. Raises FleetError."""
    found = control.tell(memory, "status")
    print(show.as_json(found)) if as_json else show.whole(found)  # noqa: T201
    return show.is_ready(found)


def act(memory: Memory, action: str, name: str) -> bool:
    """Start, stop or restart a service, and print its state. Return whether the state is the wanted one. Raises FleetError."""
    found = control.tell(memory, action, name)
    found["services"] = [one for one in found["services"] if one["name"] == name]
    show.services(found)
    return all(one["state"] == "stopped" for one in found["services"]) if action == "stop" else show.is_ready(found)


def names(memory: Memory) -> list[str]:
    """Return the services of the run of this folder; none without a run."""
    try:
        return [one["name"] for one in control.tell(memory, "status")["services"]]
    except FleetError:
        return []


def down(memory: Memory) -> None:
    """End the run of this folder, and wait until all of its processes have ended. Raises FleetError."""
    control.tell(memory, "down")
    with (memory.folder / "lock").open("r+") as lock:
        deadline = time.monotonic() + DOWN_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(STEP_SECONDS)
            else:
                return
    raise FleetError(f"the services still end after {DOWN_SECONDS} s: see {memory.folder}/up.log")


def logs(memory: Memory, name: str, *, follow: bool) -> None:
    """Print what a service has written, and with `follow` what it writes until Ctrl-C. Raises FleetError."""
    path = memory.log(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.log") if ".old" not in one.name)) or "none"
        raise FleetError(f"there is no log of {name!r} in {path.parent}: there are {known}")
    out, file, rest = console(), path.open("rb"), b""
    while True:
        received = file.read(2**20)
        *whole, rest = (rest + received).split(b"\n")
        is_over = not received and not follow
        for line in readable([*whole, rest] if is_over else whole):
            out.print(visible(line), markup=False, soft_wrap=True)
        if is_over:
            return
        if not received:
            time.sleep(STEP_SECONDS)
            if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:  # the log was set aside
                file, rest = path.open("rb"), b""
