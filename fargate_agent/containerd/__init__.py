"""containerd by gRPC: one module per service, dataclasses in and out, no policy."""
