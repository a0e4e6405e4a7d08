"""`fargate doctor`: what doesn't work, and what this machine denies to tasks."""
