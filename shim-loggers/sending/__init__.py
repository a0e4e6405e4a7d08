"""From lines to a destination: the spool, the sender, and what every destination shares."""
