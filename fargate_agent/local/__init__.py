"""The agent's local socket: logs, images and pull progress for the command line."""
