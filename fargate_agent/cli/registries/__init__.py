"""`fargate login` and `fargate logout`."""
