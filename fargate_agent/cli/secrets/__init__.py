"""`fargate secrets`: values for tasks on a machine that does without AWS."""
