# Platform-owned: `copier update` replaces this file.
"""Check that the service at a URL answers, and that it has the deployed version (`make smoke URL=…`).

The check asks /readyz, and then requests the first list of specs/openapi.json. SMOKE_TOKEN may have an access token for that.
"""

import json
import os
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

# A load balancer may need this time until it sends requests only to the new pods.
PATIENCE_SECONDS = 120


def main(url: str, version: str) -> int:
    """Check the service. Returns the exit status: 0 if the service answers, 1 if not, 2 for wrong arguments."""
    if not url.startswith(("http://", "https://")) or not version:
        print("URL or VERSION is not set: name both, as in make smoke URL=https://… VERSION=…", file=sys.stderr)
        return 2
    token = os.environ.get("SMOKE_TOKEN", "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        print("SMOKE_TOKEN is no access token: set it to the token alone, without the word Bearer", file=sys.stderr)
        return 2
    base = url.rstrip("/")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while refused := _not_ready(base, version):
        if time.monotonic() > deadline:
            print(f"{base}/readyz: not ready as version {version}: {refused}", file=sys.stderr)
            return 1
        time.sleep(2)
    print(f"{base}: ready, version {version}")
    paths = json.loads(Path("specs/openapi.json").read_text())["paths"]
    path = next((path for path, methods in paths.items() if "get" in methods and "{" not in path), None)
    if path is None:
        return 0
    status, _ = _get(base + path, token)
    print(f"GET {path}: {status}")
    if token and status in (401, 403):
        print("SMOKE_TOKEN is refused: set a new access token, or none to accept this answer", file=sys.stderr)
    # Without a token, a refusal of the request shows as well that the service answers.
    return 0 if status == 200 or (status in (401, 403) and not token) else 1


def _not_ready(base: str, version: str) -> str:
    """Return the answer of /readyz if no process with that version is ready; an empty text if one is."""
    status, body = _get(f"{base}/readyz?{urlencode({'version': version})}")
    try:
        ready = status == 200 and json.loads(body)["status"] == "ok"
    except (ValueError, TypeError, KeyError):
        ready = False
    return "" if ready else f"{status} {body}"


def _get(url: str, token: str = "") -> tuple[int, str]:
    """Return status and body, or 0 and the reason if there was no answer."""
    request = Request(url)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # a redirect to another host has no token
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
