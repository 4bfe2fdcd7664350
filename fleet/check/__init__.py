"""`fleet check`: what one service does otherwise than the platform, and how it stands."""
