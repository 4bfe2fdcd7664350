"""`python -m tests.chaos.journal work | migrate`"""

from chassis.commands import main

from tests.chaos.journal.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(main(SERVICE))
