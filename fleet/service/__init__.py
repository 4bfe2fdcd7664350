"""A service as its repository has it, and the fleet that fleet.toml lists."""
