"""A service that works by itself: scheduled jobs, long jobs in a queue of their own, states that are published again."""
