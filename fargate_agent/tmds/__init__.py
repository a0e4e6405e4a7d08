"""The task metadata endpoint, 169.254.170.2, at the other end of each task's `eth0`."""
