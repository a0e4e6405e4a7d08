"""What a VPC serves its tasks besides their metadata: a resolver of names, and the time."""
