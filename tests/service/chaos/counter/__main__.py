"""`python -m tests.service.chaos.counter serve | work | migrate`"""

from chassis.commands import main

from tests.service.chaos.counter.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(main(SERVICE))
