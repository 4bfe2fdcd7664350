"""A Git server with a repository that only its members may read: HTTP with a password, as at every Git host."""

import base64
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.commands import git


@contextmanager
def serving(repository: Path, folder: Path, members: Collection[str]) -> Generator[str]:
    """Yield the address of a copy of the repository, for members such as `ana:s3cret`."""
    bare = folder / "private" / f"{repository.name}.git"
    git(folder, "clone", "--quiet", "--mirror", str(repository), str(bare))
    git(bare, "update-server-info")  # now a server of plain files is enough
    allowed = {f"Basic {base64.b64encode(member.encode()).decode()}" for member in members}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] in allowed:
                super().do_GET()
            else:
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="members"')
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(bare.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{bare.name}"
        finally:
            server.shutdown()
            thread.join()
