"""The same orders on the chassis, on Absurd and on DBOS, for bench/sagas.py."""
