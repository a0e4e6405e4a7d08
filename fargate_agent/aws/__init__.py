"""Calls to services of AWS, or of what stands for AWS, and the machine's own keys."""
