"""A service of one table, for tests of the chassis: each route needs one promise of the chassis."""
