"""`fargate logs`: what containers wrote."""
