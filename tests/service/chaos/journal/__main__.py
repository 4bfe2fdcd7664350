"""`python -m tests.service.chaos.journal work | migrate`"""

from chassis.commands import main

from tests.service.chaos.journal.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(main(SERVICE))
