"""`fleet status`: the state of all services of the fleet."""
