"""The values of secrets that a task definition refers to."""
