"""Run git, and read repositories with it: none of their code, none of their configuration."""
