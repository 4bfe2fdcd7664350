"""Judges of parts of a service: linters, and programs that read migrations, overlays and API documents."""
