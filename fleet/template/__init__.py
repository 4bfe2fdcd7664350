"""The template: where it is, its releases, and what each of them makes of a service's answers."""
