# Platform-owned: `copier update` replaces this file.
"""List known vulnerabilities of the service's packages, except those that osv-scanner.toml ignores (`make audit`).

That file is yours, in the format of Google's OSV-Scanner:

    [[IgnoredVulns]]
    id = "GHSA-xxxx-xxxx-xxxx"
    ignoreUntil = 2027-01-31
    reason = "only with SOCKS proxies, which we do not use"
"""

import os
import subprocess
import sys
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

IGNORES = Path("osv-scanner.toml")


def main(arguments: list[str]) -> int:
    """Ask the OSV database through uv. Returns the exit status: 0 without vulnerabilities, 1 with some, 2 without an answer."""
    entries = tomllib.loads(IGNORES.read_text()).get("IgnoredVulns", []) if IGNORES.exists() else []
    today = datetime.now(UTC).date()
    ignored = []
    for entry in entries:
        until = entry.get("ignoreUntil")
        if not (entry.get("id") and entry.get("reason") and isinstance(until, date)):
            print(f"{IGNORES}: an entry needs an id, a reason, and a date in ignoreUntil: {entry}", file=sys.stderr)
            return 2
        if today < (until.date() if isinstance(until, datetime) else until):
            ignored += ["--ignore", entry["id"]]
        else:
            print(f"{IGNORES}: {entry['id']} is no longer ignored, since {until} ({entry['reason']})", file=sys.stderr)
    # The image has no development tools, so skip the group `dev` and the chassis' extra `dev`.
    audit = ["audit", "--frozen", "--no-dev", "--no-extra", "dev", "--preview-features", "audit-command"]
    return subprocess.run([os.environ["UV"], *audit, *ignored, *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
