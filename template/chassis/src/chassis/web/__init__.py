"""HTTP, from the socket to the route."""
