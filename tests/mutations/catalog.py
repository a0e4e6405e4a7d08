"""Every change that a test must notice."""

from typing import Final

from tests.mutations.lives import OF_CONTAINERS
from tests.mutations.tasks import OF_TASKS

MUTATIONS: Final = OF_TASKS + OF_CONTAINERS
