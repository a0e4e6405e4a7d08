"""What has happened: written down, read, told to others, forgotten."""
