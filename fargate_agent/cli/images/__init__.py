"""`fargate images`: what the agent of this machine has in store."""
