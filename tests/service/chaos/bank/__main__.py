"""`python -m tests.service.chaos.bank work`"""

from tests.service.chaos.bank.main import SERVICE
from tests.service.chaos.mutants import worker

if __name__ == "__main__":
    raise SystemExit(worker(SERVICE))
