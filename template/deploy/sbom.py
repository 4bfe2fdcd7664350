# Platform-owned: `copier update` replaces this file.
"""Complete the list of the service's packages (`make push`) with the image's: Debian's packages, Python, and Python's packages.

It runs inside the image, reads the list of `make sbom` from its input, and writes the complete list to its output, without
the packages that only other systems need.
"""

import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

PACKAGES = Path("/var/lib/dpkg/status")


def components() -> Iterator[dict[str, str]]:
    """Yield the CycloneDX components of the image."""
    system = platform.freedesktop_os_release()
    release = system.get("VERSION_ID") or system["VERSION_CODENAME"]  # an unreleased Debian has no number
    yield {"type": "operating-system", "name": system["ID"], "version": release}
    version = platform.python_version()
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    yield component("python", version, "generic/python", type="application", cpe=cpe)
    own = sysconfig.get_path("purelib", "posix_prefix", {"base": sys.base_prefix})
    for found in distributions(path=[own]):
        yield component(found.name, found.version, f"pypi/{found.name}")
    for package in debian_packages():
        source = package.get("Source", package["Package"]).split()[0]
        where = f"arch={package['Architecture']}&distro={system['ID']}-{release}&upstream={quote(source)}"
        name = f"deb/{system['ID']}/{quote(package['Package'])}"
        yield component(package["Package"], package["Version"], name, qualifiers=f"?{where}")


def component(name: str, version: str, path: str, *, qualifiers: str = "", **more: str) -> dict[str, str]:
    purl = f"pkg:{path}@{quote(version, safe='')}{qualifiers}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl, **more}


def debian_packages() -> Iterator[dict[str, str]]:
    """Yield the fields of each installed Debian package."""
    for text in PACKAGES.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status") == "install ok installed":
            yield fields


def is_shipped(listed: dict[str, Any], installed: set[str]) -> bool:
    """Return whether the image has a listed package. uv lists the packages of all systems, and marks a package of only some."""
    is_marked = any(one["name"] == "uv:package:marker" for one in listed.get("properties", ()))
    return not is_marked or listed["name"] in installed


if __name__ == "__main__":
    bill = json.load(sys.stdin)
    installed = {re.sub(r"[-_.]+", "-", found.name).lower() for found in distributions()}
    bill["components"] = [one for one in bill["components"] if is_shipped(one, installed)] + [*components()]
    json.dump(bill, sys.stdout, indent=2)
