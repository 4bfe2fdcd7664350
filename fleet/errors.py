"""What a person can do something about. Printed without a traceback; everything else is a bug and keeps its own."""


class FleetError(Exception):
    """It cannot be done. The message says why, and what to do."""
