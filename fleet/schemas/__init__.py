"""Compare schemas. The files are links to the chassis, so that both compare by the same rules."""
