"""`python -m tests.service.chaos.clerk work | migrate | republish`"""

from chassis.commands import main

from tests.service.chaos.clerk.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(main(SERVICE))
