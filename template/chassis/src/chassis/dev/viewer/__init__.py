"""A local page with the traces and the logs of services: an OTLP receiver, a store on SQLite, and the page itself.

`make dev` starts the viewer. Everything in it may come from a stranger: names, attributes, log lines and requests.
"""
