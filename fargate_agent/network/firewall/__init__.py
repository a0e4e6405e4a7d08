"""The agent's packet filter: what an ENI may send, and what reaches it.

`table` is the host's table, one for each agent; `rules` are those of security groups; `firewall`
owns both and what it knows of the groups.
"""
