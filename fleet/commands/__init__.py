"""The commands. Each imports the modules that it needs when it runs, because their imports take long."""
