"""What the shim gives a logger: flags, pipes, the signal that ends it."""
