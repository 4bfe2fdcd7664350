"""The documents of a service's messages, and the gate that compares two versions of them."""
