"""`fargate why` of pulls that fail, or are being tried again."""

import pytest

from fargate_agent.cli.clients.agent import Pull
from fargate_agent.cli.why.explain import explain, is_pulling
from fargate_agent.cli.why.show import note_retries, render_why
from tests.unit.test_cli_why import NOW, failed_to_start, make_task, uncoloured


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        pytest.param(
            'CannotPullContainerError: failed to do request: Head "https://r/v2/": http: server'
            " gave HTTP response to HTTPS client; to speak to it without TLS, list r in the agent's"
            " setting insecure_registries",
            "List it in the agent's setting insecure_registries",
            id="insecure registry",
        ),
        pytest.param(
            'CannotPullContainerError: Get "http://cdn/x": cdn is not listed as an insecure'
            " registry",
            "List it in the agent's setting insecure_registries",
            id="insecure redirect",
        ),
        pytest.param(
            'CannotPullContainerError: failed to do request: Head "https://r/v2/": tls: failed to'
            " verify certificate: x509: certificate signed by unknown authority",
            "as the ca_file of the registry",
            id="private CA",
        ),
        pytest.param(
            'CannotPullContainerError: Head "https://r/v2/": through the proxy http://p:3128 of the'
            " agent's setting registry_proxy: the proxy answered 403 Forbidden",
            "Check the agent's settings registry_proxy and registry_no_proxy",
            id="proxy",
        ),
        pytest.param(
            "CannotPullContainerError: tls: failed to verify certificate: x509: certificate has"
            " expired or is not yet valid",
            "Check the registry's certificate",
            id="expired certificate",
        ),
        pytest.param(
            "CannotPullContainerError: unexpected status from GET request to https://r/v2/b: 429"
            " Too Many Requests - Server message: toomanyrequests: You have reached your pull rate"
            " limit.",
            "limits how often it is asked",
            id="pull rate limit",
        ),
    ],
)
def test_reason_of_a_failed_pull_is_explained_with_what_to_do(reason: str, said: str) -> None:
    explanation = explain(failed_to_start(reason))

    assert said in f"{explanation.what} {explanation.advice}"


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
