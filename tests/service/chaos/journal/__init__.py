"""A service that records each event that it handles, and would show an event that was handled twice."""
