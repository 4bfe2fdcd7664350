"""A service in its repository, and the fleet that fleet.toml lists."""
