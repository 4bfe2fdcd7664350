"""The template: its repository, its releases, and the services that they render from answers."""
