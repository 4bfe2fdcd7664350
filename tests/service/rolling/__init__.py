"""Two versions of one service, rolled out under load: stand-ins for Kubernetes, callers and a consumer."""
