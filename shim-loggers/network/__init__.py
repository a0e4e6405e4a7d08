"""Connections: TCP, TLS, unix sockets, DNS, HTTP."""
