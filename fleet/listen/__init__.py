"""Write what a service needs to listen to a message of another service."""
