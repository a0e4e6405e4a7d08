"""Images as people use them, built from Debian's packages, and the tasks that run them."""
