from fargate_agent.controlplane.services.launches import render_request
from fargate_agent.controlplane.state.model import Service


def test_service_that_asked_for_exec_before_it_was_refused_still_gets_tasks() -> None:
    template = {"propagateTags": "NONE", "enableExecuteCommand": True, "launchType": "FARGATE"}

    assert render_request(Service(), template) == {"launchType": "FARGATE"}
