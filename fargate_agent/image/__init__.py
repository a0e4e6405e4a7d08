"""Images: the registry protocol through a task's network, into containerd's stores."""
