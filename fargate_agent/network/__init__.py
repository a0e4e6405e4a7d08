"""Network namespaces and interfaces by netlink, without a child process."""
