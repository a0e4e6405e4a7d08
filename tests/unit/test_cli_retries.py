"""`fargate why` of a pull that is being tried again."""

from fargate_agent.cli.agent import Pull
from fargate_agent.cli.causes import explain, is_pulling
from fargate_agent.cli.why import note_retries, render_why
from tests.unit.test_cli_why import NOW, make_task, uncoloured


def pull_of(container: str, retry: str) -> Pull:
    return Pull(
        container=container,
        image="registry.local/web:1",
        fetched_bytes=0,
        total_bytes=0,
        unpacked_layers=0,
        total_layers=0,
        retry=retry,
        done=False,
    )


def test_pull_that_is_being_tried_again_is_explained_with_what_to_do() -> None:
    containers = [{"name": "app", "lastStatus": "PENDING"}, {"name": "side"}]
    task = make_task(lastStatus="PENDING", desiredStatus="RUNNING", containers=containers)
    del task["pullStoppedAt"]
    retry = 'try 2 of 5: Head "https://r/v2/": dial tcp: lookup r: no such host'

    assert is_pulling(task)
    note_retries(task, [pull_of("app", retry), pull_of("side", "")])

    explanation = explain(task)
    assert "tried again" in explanation.what
    assert "Check DNS" in explanation.advice
    lines = uncoloured(render_why(task, explanation, 200, NOW))
    assert [line for line in lines if "try 2 of 5" in line] == [f"app           PENDING, {retry}"]


def test_pull_without_further_tries_is_explained_as_such() -> None:
    task = make_task(lastStatus="PENDING", desiredStatus="RUNNING", containers=[{"name": "app"}])
    del task["pullStoppedAt"]
    note_retries(task, [pull_of("app", "")])

    assert explain(task).what == "Its images are being pulled."
