"""Read a file of a checkout, whose team chooses where links lead."""

import errno
import os
import stat
from pathlib import Path

from fleet.service.files import MOST_TEXT_BYTES


def read_regular_file(path: Path) -> bytes:
    """Read a file of at most MOST_TEXT_BYTES. Raises OSError for other files, such as a pipe, or a link to a device without end."""
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(MOST_TEXT_BYTES + 1)
    if len(content) > MOST_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MOST_TEXT_BYTES:,} bytes", str(path))
    return content
