"""What containers and the agent itself use and do: buckets, Prometheus, traces."""
