"""What commands ask: the ECS API of the control plane, and the agent of this machine."""
