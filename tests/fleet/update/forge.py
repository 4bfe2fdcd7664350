"""A local Git host: the part of Gitea's API that Renovate uses before it opens a pull request."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ORGANISATION = "acme"


class Forge(ThreadingHTTPServer):
    """Serve the bare repositories in a folder. `pulls` lists the opened pull requests, by repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.folder = folder
        self.pulls: dict[str, list[dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def repositories(self) -> list[str]:
        return [f"{ORGANISATION}/{bare.stem}" for bare in sorted(self.folder.glob("*.git"))]

    def repository(self, name: str) -> dict[str, Any]:
        return {
            "id": 1,
            "full_name": f"{ORGANISATION}/{name}",
            "owner": {"id": 2, "login": ORGANISATION},
            "default_branch": "main",
            "clone_url": f"file://{self.folder}/{name}.git",
            "permissions": {"admin": False, "pull": True, "push": True},
            "allow_merge_commits": True,
        }

    def open(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.pulls.setdefault(name, []).append(asked)
        return {
            "number": 1,
            "state": "open",
            "title": asked["title"],
            "body": asked["body"],
            "mergeable": True,
            "created_at": "2027-01-01T00:00:00Z",
            "updated_at": "2027-01-01T00:00:00Z",
            "base": {"ref": asked["base"]},
            "head": {"label": asked["head"], "sha": "0" * 40, "repo": {"full_name": f"{ORGANISATION}/{name}"}},
        }


class _Api(BaseHTTPRequestHandler):
    server: Forge  # ty: ignore[incompatible-mutable-override]

    def do_GET(self) -> None:
        match self.path.partition("?")[0].removeprefix("/api/v1/").split("/"):
            case ["user"]:
                self._answer({"id": 1, "login": "renovate", "email": "renovate@example.com"})
            case ["version"]:
                self._answer({"version": "1.24.0"})
            case ["repos", _, name]:
                self._answer(self.server.repository(name))
            case ["repos", _, _, "labels"]:
                self._answer([{"id": 7, "name": "template"}])
            case ["repos", _, _, "pulls"] | ["repos", _, _, "commits", _, "statuses"]:
                self._answer([])
            case _:
                self._answer({"message": "not found"}, 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match self.path.removeprefix("/api/v1/").split("/"):
            case ["repos", _, name, "pulls"]:
                self._answer(self.server.open(name, asked), 201)
            case ["repos", _, _, "statuses", _]:
                self._answer({"id": 1, "status": asked["state"], "context": asked["context"], "created_at": ""}, 201)
            case _:
                self._answer({"message": "not found"}, 404)

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the log out of the output of the tests."""


@contextmanager
def running(folder: Path) -> Generator[Forge]:
    with Forge(folder) as forge:
        threading.Thread(target=forge.serve_forever, daemon=True).start()
        try:
            yield forge
        finally:
            forge.shutdown()
