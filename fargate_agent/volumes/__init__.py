"""Volumes of tasks, a driver for each kind, and the ephemeral volume that bounds a task."""
