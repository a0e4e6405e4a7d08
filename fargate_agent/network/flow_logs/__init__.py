"""Flow logs of ENIs that the host routes: what passed, and what was refused, one line for each.

What passed is what the kernel's connection tracking has counted: it is asked from time to time
(`tracked`), and tells of each flow that ends. What was refused the packet filter passes on
(`refused`). A thread of its own (`recorder`) reads both, and adds up an interval (`window`). Its
lines (`records`) go to a file (`log_file`) or to CloudWatch Logs (`log_group`). `flow_logs` is what
the agent runs.
"""
