"""Numbers of a program about itself, and how Prometheus reads them; for both programs."""
