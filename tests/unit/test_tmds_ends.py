"""Answers of many tasks are rendered anew one after the other, not all at once."""

from collections import Counter

import pytest

from fargate_agent.tmds.handlers import KEPT_S, find_end

TASKS = [f"{number:032x}" for number in range(50)]


@pytest.mark.parametrize("now_s", [0.0, 1234.5678, 1e6])
def test_answer_counts_for_a_second_at_most(now_s: float) -> None:
    lives_s = [find_end(task, now_s) - now_s for task in TASKS]

    assert all(0 < life_s <= KEPT_S for life_s in lives_s)


def test_answers_that_were_rendered_together_end_apart() -> None:
    tenths = Counter(int(find_end(task, 1000.0) * 10 / KEPT_S) for task in TASKS)

    assert len(tenths) >= 9
    assert max(tenths.values()) <= len(TASKS) / 4


def test_next_answer_ends_a_second_later() -> None:
    first_s = find_end(TASKS[0], 1000.0)

    assert find_end(TASKS[0], first_s + 0.01) == pytest.approx(first_s + KEPT_S)
