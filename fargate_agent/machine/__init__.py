"""What this machine lacks for tasks, found by looking at it before a task meets it."""
