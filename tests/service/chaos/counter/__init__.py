"""A service that counts: each step is an event, numbered within its counter."""
