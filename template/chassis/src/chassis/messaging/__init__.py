"""Messages: the outbox and its relay, the inbox and its consumer, and the parked messages."""
