"""What judges a part of a service: linters of others, and readers of what only programs can say."""
