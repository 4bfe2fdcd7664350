"""A service of one table, for tests of the chassis: each route does one thing that the chassis promises to handle."""
