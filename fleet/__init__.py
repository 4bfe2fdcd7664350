"""The command line of the platform: one service or hundreds, kept like the template."""
