"""A stand-in for the official Python image, for an engine that cannot pull: Debian's Python. Only tests use it.

It has the parts of the official image that the Dockerfile expects: `python` and `pip`, a standard library without
bytecode, no lists of packages.
"""

import configparser
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import debian
from tests.support.paths import ROOT
from tests.support.tools import TOOLS, call, install_from_debian, one_at_a_time

VERSION = (ROOT / "template/.python-version").read_text().strip()
VARIANT = re.findall(r"(?m)^FROM python:{{.*?}}(-\S+)", (ROOT / "template/Dockerfile.jinja").read_text())[0]
TAG = f"python:{VERSION}{VARIANT}"
SUITE = "forky"
"""The release of Debian whose own Python has the same minor version. The official image has an older release."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# This runs in the new file system, $1. Debian's Python accepts pip only from Debian, unlike the official image.
LIKE_THE_OFFICIAL_ONE = r"""
find "$1/usr" ( -name __pycache__ -o -name EXTERNALLY-MANAGED ) -prune -exec rm -r {} +
rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*
ln -s python3 "$1/usr/bin/python"
printf '#!/bin/sh\nPYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) exec python3 -m pip "$@"\n' > "$1/usr/local/bin/pip"
chmod 755 "$1/usr/local/bin/pip"
""".replace("( -name", r"\( -name").replace("MANAGED )", r"MANAGED \)")


def load(docker: Callable[..., Any], folder: Path) -> None:
    """Give the engine the stand-in under the name in the Dockerfile, with the configuration of this machine.

    The access to the package index (certificate authorities, configuration of pip and uv) is added here, and not to the
    cached archive.
    """
    context = folder / "base"
    context.mkdir()
    docker("import", str(file_system()), "stand-in:plain")
    shutil.copy(os.environ.get("SSL_CERT_FILE", CERTIFICATES), context / "certificates.crt")
    (context / "pip.conf").write_text(_pip())
    (context / "uv.toml").write_text(_uv())
    (context / "Dockerfile").write_text(
        f"FROM stand-in:plain\nCOPY certificates.crt {CERTIFICATES}\nCOPY pip.conf /etc/\nCOPY uv.toml /etc/uv/\n"
    )
    docker("build", "--quiet", "--tag", TAG, str(context))


def file_system() -> Path:
    """Return the archive of the file system, which is made once, in half a minute. This needs root on Debian."""
    archive = TOOLS / f"{TAG.replace(':', '-')}-stand-in.tar"
    with one_at_a_time("base-image"):
        if not archive.exists():
            if shutil.which("mmdebstrap") is None:
                install_from_debian("mmdebstrap")
            # Outside of the machine's configuration of apt, which knows only the machine's release.
            options = [
                "--dpkgopt=force-unsafe-io",
                # A mirror may keep the state of an unfinished release for longer than that state is valid.
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_READ),
            ]
            packages = "--include=python3,python3-venv,ca-certificates"
            made = archive.with_name(f"new-{archive.name}")
            hook = f"--customize-hook={LIKE_THE_OFFICIAL_ONE}"
            call(
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                packages,
                *options,
                hook,
                SUITE,
                str(made),
                debian.mirror(),
            )
            made.rename(archive)
    return archive


NOT_READ = ("doc", "locale", "man")


def _pip() -> str:
    known = configparser.ConfigParser(interpolation=None)
    known.read(["/etc/pip.conf", Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"])
    options = {}
    for name in ("index-url", "extra-index-url", "trusted-host", "timeout"):
        value = os.environ.get(f"PIP_{name.replace('-', '_').upper()}") or known.get("global", name, fallback="")
        if value:
            options[name] = value
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())


def _uv() -> str:
    for file in (Path.home() / ".config/uv/uv.toml", Path("/etc/uv/uv.toml")):
        if file.exists():
            return file.read_text()
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")
    return "system-certs = true\n" + (f'index-url = "{index}"\n' if index else "")
