"""The platform's command line: check and update the services that are made from the template."""
