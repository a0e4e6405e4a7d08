"""Faults in the network of a task: ports that swallow packets, packets that are late or lost.

`black_holes` and `flows` write rules of the packet filter, `qdiscs` the kernel's queues, and
`injector` puts both into network namespaces. All of it is in the namespace of the task, in a table
and in queues of their own, so it ends with the task and touches no rule of anybody else.
"""
