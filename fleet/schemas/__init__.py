"""One comparison of schemas, which the chassis has too: its files are the chassis' own."""
