"""`fleet map`: who calls whom and who hears of what, from what the services' repositories say; and what is wrong with it."""
