"""`make demo`: a service from nothing, running for real, with what it does shown."""
