"""Our rules against those of cfn-lint, which somebody else keeps: both have to judge alike.

Source: cfn-lint, data/schemas/extensions/aws_ecs_taskdefinition, its rules E3046, E3047 and E3048.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

import pytest
from cfnlint.jsonschema import StandardValidator  # type: ignore[import-untyped]

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.sizes import PAIRS
from tests.unit.test_rules_texts import ACCOUNT, AWSLOGS, ROLE, app, definition, logs, sidecar

OPTIONS: Final = {"awslogs-group": "g", "awslogs-region": "us-east-1"}

ON_PURPOSE: Final = {
    "leading zero": "AWS takes any number of vCPUs; cfn-lint knows .25 and .5 only",
    "spaces around": "AWS takes any spaces; cfn-lint those before the unit only",
    "no placement constraints": "an empty list asks for nothing, and tools send it",
    "no stream prefix": "measured on the API: Fargate requires one; cfn-lint has no rule for it",
    "no execution role": "measured on the API: Fargate requires one; cfn-lint has no rule for it",
}
"""Where we judge otherwise, by the id of the case, and why."""


@cache
def schema(name: str) -> Any:
    folder = files("cfnlint.data.schemas.extensions.aws_ecs_taskdefinition")
    return StandardValidator(json.loads((folder / f"{name}.json").read_text()))


def accepts(name: str, value: Any) -> bool:
    return not any(schema(name).iter_errors(value))


def cfn_lint_accepts(request: dict[str, Any]) -> bool:
    properties = to_properties(request)
    configurations = [
        container["LogConfiguration"]
        for container in properties["ContainerDefinitions"]
        if "LogConfiguration" in container
    ]
    return (
        accepts("fargate_cpu_memory", properties)
        and accepts("fargate_properties", properties)
        and accepts("containerdefinitions_essential", properties["ContainerDefinitions"])
        and all(accepts("logging_configuration", value) for value in configurations)
    )


def we_accept(request: dict[str, Any]) -> bool:
    try:
        check_definition(Draft(request, ACCOUNT))
    except ApiError:
        return False
    return True


def to_properties(value: Any) -> Any:
    """Spell a request as CloudFormation does."""
    if isinstance(value, list):
        return [to_properties(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name[0].upper() + name[1:]: member if name == "options" else to_properties(member)
        for name, member in value.items()
    }


def sizes() -> Iterator[tuple[str, str]]:
    """Every pair of a CPU and a memory that some row has, the edges of the row, and beyond."""
    memories_mib = {0, 1, 300_000}.union(*PAIRS.values())
    for cpu_units, row in PAIRS.items():
        low, high = min(row), max(row)
        edges = {low - 512, low - 1, low + 1, low + 512, high - 1, high + 1, high + 1024}
        for memory_mib in sorted(memories_mib | edges | {mib + 1024 for mib in row}):
            yield str(cpu_units), str(memory_mib)
    for cpu_units in (0, 128, 257, 768, 65536):
        for memory_mib in (512, 2048, 32768):
            yield str(cpu_units), str(memory_mib)


def test_every_size_is_judged_alike() -> None:
    asked = list(sizes())

    differing = [
        (cpu, memory)
        for cpu, memory in asked
        if we_accept(definition(cpu=cpu, memory=memory))
        != accepts(
            "fargate_cpu_memory",
            {"RequiresCompatibilities": ["FARGATE"], "Cpu": cpu, "Memory": memory},
        )
    ]

    assert differing == []
    assert sum(we_accept(definition(cpu=cpu, memory=memory)) for cpu, memory in asked) == 77


CASES = [
    pytest.param({}, id="plain"),
    pytest.param({"cpu": "1 vCPU", "memory": "2 GB"}, id="units"),
    pytest.param({"cpu": "1vcpu", "memory": "2gb"}, id="small letters"),
    pytest.param({"cpu": ".25 vCPU", "memory": "0.5 GB"}, id="quarter"),
    pytest.param({"cpu": ".25 vCPU", "memory": "4 GB"}, id="quarter with too much memory"),
    pytest.param({"cpu": "32 vCPU", "memory": "244GB"}, id="largest"),
    pytest.param({"cpu": "1 vCPU", "memory": "2048"}, id="units and digits"),
    pytest.param({"cpu": "1 vCPU", "memory": "9 GB"}, id="too much memory"),
    pytest.param({"cpu": "3 vCPU", "memory": "8 GB"}, id="three vCPUs"),
    pytest.param({"cpu": "much"}, id="no number"),
    pytest.param({"cpu": "0.25 vCPU", "memory": "0.5 GB"}, id="leading zero"),
    pytest.param({"cpu": " 1 vCPU "}, id="spaces around"),
    pytest.param({"cpu": None}, id="no cpu"),
    pytest.param({"memory": None, **app(memory=64)}, id="no memory"),
    pytest.param({"networkMode": "bridge"}, id="bridge"),
    pytest.param({"networkMode": "host"}, id="host"),
    pytest.param({"networkMode": "none"}, id="none"),
    pytest.param({"networkMode": None}, id="no network mode"),
    pytest.param({"placementConstraints": [{"type": "memberOf"}]}, id="placement constraints"),
    pytest.param({"placementConstraints": []}, id="no placement constraints"),
    pytest.param(app(essential=False), id="none essential"),
    pytest.param(sidecar({"essential": True}), id="one essential"),
    *(
        pytest.param(logs(driver), id=driver)
        for driver in ("json-file", "syslog", "journald", "gelf", "fluentd")
    ),
    pytest.param(
        sidecar(
            {"logConfiguration": {"logDriver": "awsfirelens"}},
            firelensConfiguration={"type": "fluentbit"},
        ),
        id="awsfirelens",
    ),
    pytest.param(logs("splunk", **{"splunk-url": "u", "splunk-token": "t"}), id="splunk"),
    pytest.param({"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS)}, id="awslogs"),
    pytest.param(
        {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS, mode="blocking")}, id="log mode"
    ),
    pytest.param(
        {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS, tag="t")}, id="unknown option"
    ),
    *(
        pytest.param(
            {
                "executionRoleArn": ROLE,
                **logs("awslogs", **{k: v for k, v in AWSLOGS.items() if k != option}),
            },
            id=f"no {option}",
        )
        for option in OPTIONS
    ),
    pytest.param(
        {"executionRoleArn": ROLE, **app(logConfiguration={"logDriver": "awslogs"})},
        id="no options",
    ),
    pytest.param({"executionRoleArn": ROLE, **logs("awslogs", **OPTIONS)}, id="no stream prefix"),
    pytest.param(logs("awslogs", **AWSLOGS), id="no execution role"),
]


@pytest.mark.parametrize("change", CASES)
def test_definition_is_judged_alike(change: dict[str, Any], request: pytest.FixtureRequest) -> None:
    wanted = definition(**change)

    is_alike = we_accept(wanted) == cfn_lint_accepts(wanted)

    assert is_alike == (request.node.callspec.id not in ON_PURPOSE)


def test_every_difference_has_its_case() -> None:
    assert set(ON_PURPOSE) <= {case.id for case in CASES}
