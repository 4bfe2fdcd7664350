"""`make demo`: generate a service, run it, and show its work."""
