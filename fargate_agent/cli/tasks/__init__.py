"""`fargate run`, `ps`, `describe` and `stop`."""
