"""`fleet update`: services to a version of the template."""
