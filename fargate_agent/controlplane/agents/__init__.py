"""Agents: registered, connected, chosen for tasks, listened to."""
