"""What agents tell of what their tasks use: kept for a day, read by `GET /metrics/tasks`."""
