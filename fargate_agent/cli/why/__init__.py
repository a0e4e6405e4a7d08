"""`fargate why`: why a task is as it is."""
