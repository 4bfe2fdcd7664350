"""`fleet map`: calls, events and jobs between services, read from their repositories, and the faults between services."""
