"""The task metadata endpoint, 169.254.170.2, inside each task's network namespace."""
