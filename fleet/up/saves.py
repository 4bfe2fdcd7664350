"""Restart each service whose code is saved: one watcher for the files of all."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from watchfiles import awatch

from fleet.up.service import ProductService


async def restart_saved(services: Collection[ProductService], tell: Callable[[str], None]) -> None:
    """Watch the code of the services until this is cancelled."""
    places: dict[Path, ProductService] = {}
    for one in services:
        for part in ("src", "chassis/src"):
            if (one.checkout.folder / part).is_dir():
                places[(one.checkout.folder / part).resolve()] = one
    try:
        async for changes in awatch(*places):
            restart_changed(places, [Path(path) for _, path in changes], tell)
    except (OSError, RuntimeError) as error:  # for example, the system's limit of watched folders is reached
        tell(f"no file is watched any more, so run `fleet restart NAME` after a save: {error}")
        await asyncio.Event().wait()


def restart_changed(
    places: Mapping[Path, ProductService], changed: Sequence[Path], tell: Callable[[str], None]
) -> None:
    for place, one in places.items():
        saved = sorted(path for path in changed if path.is_relative_to(place))
        if saved and one.state != "stopped":
            shown = os.path.relpath(saved[0], one.checkout.folder.resolve())  # `src` may be a link to elsewhere
            tell(f"{one.checkout.name} restarts: {shown} was saved")
            one.ask("restart")
