"""`fleet up`: run the services of a product on one machine, with one PostgreSQL, one NATS, one issuer and one page."""
