"""`python -m fleet`: the same as the console script."""

from fleet.main import main

main()
