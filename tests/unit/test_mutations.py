"""The list of mutations fits the code as it is; `make mutation-test` tries them."""

from pathlib import Path

import pytest

from tests.mutations.catalog import MUTATIONS
from tests.mutations.mutation import Mutation

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_changes_a_place_that_is_there(mutation: Mutation) -> None:
    text = (PROJECT / mutation.file).read_text()

    assert mutation.apply(text) != text
