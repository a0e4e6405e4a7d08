"""`fargate keys`: access keys of the control plane."""
