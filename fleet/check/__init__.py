"""`fleet check`: where one service differs from the platform, and the standing of the service."""
