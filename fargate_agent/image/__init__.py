"""Images: from registries and archives into containerd's stores."""
