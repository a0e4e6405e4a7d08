"""`fargate up`: control plane, agent and containerd as one stack, in the foreground."""
