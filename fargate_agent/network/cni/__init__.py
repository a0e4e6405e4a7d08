"""Networks of CNI plugins: an operator's conflist, run as a container runtime runs it."""
