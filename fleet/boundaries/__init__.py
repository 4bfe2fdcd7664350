"""`fleet map --boundaries`: ask whether the services are still the right ones, by the histories of their repositories."""
