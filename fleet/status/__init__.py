"""`fleet status`: how all services of the fleet stand."""
