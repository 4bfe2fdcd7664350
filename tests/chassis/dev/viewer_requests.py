"""Requests to a viewer, with any header and any path."""

import http.client
from urllib.parse import urlsplit

from chassis.dev.viewer import server as viewer


def ask(
    shown: viewer.Viewer, path: str, body: bytes | None = None, *, raw_path: str | None = None, **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    parts = urlsplit(shown.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", raw_path or parts.path + path, body, sent)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content, answer.headers
