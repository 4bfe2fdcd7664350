"""Two versions of one service, rolled under load: what plays Kubernetes, and who calls and listens."""
