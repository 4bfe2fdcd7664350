"""`fleet impact`: the services that a change breaks, by the expectations that they have committed."""
