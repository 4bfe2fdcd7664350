"""`fleet client`: typed functions for the operations of a neighbour's HTTP API that a service calls."""
