"""A Fargate-style agent: ECS tasks in containerd, each in a network namespace of its own."""

__version__ = "0.1.0"
