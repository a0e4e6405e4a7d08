"""A member that no verdict was given on is unknown, whatever botocore knows."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.known_members import KNOWN_MEMBERS
from fargate_agent.controlplane.validate import check_shape, service_model
from tests.fixtures.ecs import APP, FARGATE
from tests.members import OPERATIONS


def structures(shape: Any, seen: set[str]) -> Iterator[Any]:
    if shape.type_name == "list":
        yield from structures(shape.member, seen)
    elif shape.type_name == "structure" and shape.name not in seen:
        seen.add(shape.name)
        yield shape
        for member in shape.members.values():
            yield from structures(member, seen)


def test_known_members_are_those_of_botocore_s_model() -> None:
    seen = set[str]()
    shapes = [
        shape
        for operation in (*OPERATIONS, "UpdateService")
        for shape in structures(service_model().operation_model(operation).input_shape, seen)
    ]

    assert {shape.name: frozenset(shape.members) for shape in shapes} == KNOWN_MEMBERS


@pytest.mark.parametrize("shape", ["RegisterTaskDefinitionRequest", "ContainerDefinition"])
def test_member_of_a_newer_botocore_is_refused(shape: str) -> None:
    model = copy.deepcopy(Loader().load_service_model("ecs", "service-2"))
    model["shapes"][shape]["members"]["brandNew"] = {"shape": "String"}
    newer = ServiceModel(model).operation_model("RegisterTaskDefinition").input_shape
    new: dict[str, Any] = {"brandNew": "x"}
    if shape == "ContainerDefinition":
        new = {"containerDefinitions": [{**APP, **new}]}

    check_shape(FARGATE, newer, "")
    with pytest.raises(ApiError, match='Unknown parameter in .*: "brandNew"') as error:
        check_shape({**FARGATE, **new}, newer, "")

    assert "brandNew" not in error.value.message.partition("must be one of")[2]
