"""Flow logs: what went through the ENIs of kind veth, and what their security groups refused.

Accepted flows are those that the kernel tracks; refused packets are told by the packet filter.
"""
