"""Credentials of tasks' roles: minted here, kept in memory only, and pushed to the agents."""
