"""The life of ECS tasks: what is done for one, in which order, and how it is taken back."""
