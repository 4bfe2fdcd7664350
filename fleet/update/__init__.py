"""`fleet update` and `fleet update-all`: bring services to a version of the template."""
