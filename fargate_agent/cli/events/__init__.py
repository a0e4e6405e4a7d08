"""`fargate events`: what has happened to tasks, and what happens."""
