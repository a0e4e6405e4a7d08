"""The control plane: ECS API, VPC model, intent and state of tasks, the agents' websocket."""
