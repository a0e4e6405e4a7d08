"""The agent's packet filter: what an ENI may send, and what reaches it.

`table` is the host's table, one for each agent, and `owned` keeps it in the kernel; `rules` are
those of security groups; `guard_tables` and `guards` enforce them for ENIs that the host doesn't
route, in the namespaces of their tasks; `firewall` owns all of it and what it knows of the groups.

Every flow is tracked, so one that is open goes on when the rule that allowed it goes. On AWS so
does a tracked one; one whose rules allowed everything both ways isn't tracked, and ends. Source:
Amazon EC2 user guide, "Security group connection tracking".
"""
