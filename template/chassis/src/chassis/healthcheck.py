"""`python -m chassis.healthcheck`: exit 0 if the local process is alive. For images, which hold no curl."""

import os
import sys
from urllib.request import urlopen


def main() -> int:
    """Ask /livez once, within 2 seconds."""
    try:
        with urlopen(f"http://127.0.0.1:{os.environ.get('HTTP_PORT', '8000')}/livez", timeout=2) as response:
            return 0 if response.status == 200 else 1
    except OSError as error:
        print(f"not alive: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
