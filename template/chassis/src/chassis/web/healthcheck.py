"""`python -m chassis.web.healthcheck`: exit 0 if the local process is alive. For images, which contain no curl."""

import os
import sys
from urllib.request import ProxyHandler, build_opener


def main() -> int:
    """Ask /livez once, within 2 seconds."""
    url = f"http://127.0.0.1:{os.environ.get('HTTP_PORT') or '8000'}/livez"
    direct = build_opener(ProxyHandler({}))  # a proxy in the environment does not reach this machine
    try:
        with direct.open(url, timeout=2) as response:
            return 0 if response.status == 200 else 1
    except OSError as error:
        print(f"not alive: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
