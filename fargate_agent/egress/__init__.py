"""HTTP through the network namespace of a task: sockets, names, TLS, errors and tries."""
