"""Run git and read repositories with it, without their code and their configuration."""
