"""`python -m tests.service.chaos.shop work`"""

from tests.service.chaos.mutants import worker
from tests.service.chaos.shop.main import SERVICE

if __name__ == "__main__":
    raise SystemExit(worker(SERVICE))
