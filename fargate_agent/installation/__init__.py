"""What `make install` and its opposites do that takes more than a shell; see systemd/install."""
