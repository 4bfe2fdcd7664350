"""A real OpenID provider, not ours: `oidc-provider` from npm, on loopback, whose keys a test can rotate."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from chassis.dev.embedded import spawn

from tests.support import npm
from tests.support.brokers import free_port
from tests.support.waiting import wait_until

OIDC_PROVIDER = "oidc-provider@9.13.3"
CLIENT_ID, CLIENT_SECRET = "shop", "a secret: with/special characters"  # as in oidc_provider.mjs


@dataclass(frozen=True)
class Provider:
    """A provider with one client, which obtains tokens of its own for any audience."""

    url: str

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def ask_for_token(
        self, audience: str, scope: str = "things:read", *, secret: str = CLIENT_SECRET
    ) -> httpx2.Response:
        """Ask for a token by client credentials. `audience` is an absolute URI, as RFC 8707 requires."""
        form = {"grant_type": "client_credentials", "resource": audience, "scope": scope}
        form |= {"client_id": CLIENT_ID, "client_secret": secret}
        return httpx2.post(self.token_url, data=form, timeout=60, trust_env=False)

    def token(self, audience: str, scope: str = "things:read") -> bytes:
        return self.ask_for_token(audience, scope).raise_for_status().json()["access_token"].encode()

    def rotate(self) -> None:
        """Sign with a new key from now on, and still publish the old keys."""
        httpx2.post(f"{self.url}/rotate", timeout=60, trust_env=False).raise_for_status()

    def retire(self) -> None:
        """Publish only the key that signs."""
        httpx2.post(f"{self.url}/retire", timeout=60, trust_env=False).raise_for_status()


@contextmanager
def oidc_provider() -> Generator[Provider]:
    """Run the provider. Skips the test without Node.js."""
    package, node = npm.installed(OIDC_PROVIDER), shutil.which("node")
    if node is None:
        pytest.skip("oidc-provider needs Node.js, which is not here")
    provider = Provider(f"http://127.0.0.1:{free_port()}")
    program = Path(__file__).with_suffix(".mjs")
    with tempfile.TemporaryFile() as output:
        command = [node, str(program), str(package), provider.url.rpartition(":")[2]]
        process = spawn(command, stop_signal=signal.SIGKILL, stdout=output, stderr=output)

        def printed() -> str:
            size = os.fstat(output.fileno()).st_size
            return os.pread(output.fileno(), size, 0).decode(errors="replace")

        try:
            wait_until(lambda: process.child.poll() is not None or _answers(provider), printed)
            if process.child.poll() is not None:
                raise RuntimeError(f"oidc-provider did not start:\n{printed()}")
            yield provider
        finally:
            process.stop()


def _answers(provider: Provider) -> bool:
    try:
        return httpx2.get(f"{provider.url}/jwks", timeout=60, trust_env=False).is_success
    except httpx2.TransportError:
        return False
