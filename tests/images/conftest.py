"""The images take minutes: `make images-test` runs these tests, and `make test` leaves them out."""

import os

collect_ignore_glob = [] if os.environ.get("FARGATE_TEST_IMAGES") else ["test_*.py"]
