"""Who calls, and what they may do: signatures, keys, policies."""
