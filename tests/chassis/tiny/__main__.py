"""`python -m tests.chassis.tiny serve | migrate | specs | dev | revision`"""

from chassis.commands import main

from tests.chassis.tiny.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(main(SERVICE))
