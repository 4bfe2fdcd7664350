"""The template: its repository, its releases, and the services that a release renders from answers."""
