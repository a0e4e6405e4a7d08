"""`iam:PassRole` is asked for the roles of what is registered, run, or made a service of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.controlplane import StartControlPlane, add_principal
from tests.fixtures.ecs import FARGATE, NETWORK, run

pytestmark = pytest.mark.one_store

ROLES = "arn:aws:iam::000000000000:role"
EVERYTHING_HERE = {"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}
PASSES_APPS = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": f"{ROLES}/app-*"}
SERVICE = {"serviceName": "s", "taskDefinition": "web", "networkConfiguration": NETWORK}

Clients = tuple[Any, Any]
Start = Callable[..., Clients]


@pytest.fixture
def start(state_dir: Path, start_control_plane: StartControlPlane) -> Start:
    """Start a control plane with a policy for `ci`; gives the clients of ci and of an admin."""

    def begin(*statements: dict[str, Any], **settings: Any) -> Clients:
        add_principal(state_dir, [EVERYTHING_HERE, *statements])
        plane = start_control_plane(**settings)
        return plane.client("ci"), plane.client("admin")

    return begin


def register(client: Any, **changes: Any) -> Any:
    return client.register_task_definition(**{**FARGATE, **changes})


CALLS = [
    pytest.param(lambda ci: register(ci, taskRoleArn="app-x"), id="RegisterTaskDefinition"),
    pytest.param(lambda ci: register(ci, executionRoleArn="app-x"), id="execution role"),
    pytest.param(lambda ci: run(ci), id="RunTask"),
    pytest.param(
        lambda ci: run(ci, taskDefinition="plain", overrides={"taskRoleArn": f"{ROLES}/app-x"}),
        id="override",
    ),
    pytest.param(
        lambda ci: run(ci, taskDefinition="plain", overrides={"executionRoleArn": "app-x"}),
        id="override of the execution role",
    ),
    pytest.param(lambda ci: ci.create_service(**SERVICE, desiredCount=0), id="CreateService"),
    pytest.param(
        lambda ci: ci.update_service(service="there", taskDefinition="web"), id="UpdateService"
    ),
]


def prepare(admin: Any) -> None:
    """Have a definition with a role, one without, and a service of the latter."""
    register(admin, taskRoleArn="app-x")
    register(admin, family="plain")
    service = {**SERVICE, "serviceName": "there", "taskDefinition": "plain"}
    admin.create_service(**service, desiredCount=0)


@pytest.mark.parametrize("call", CALLS)
def test_roles_are_passed_with_permission_alone(start: Start, call: Callable[[Any], Any]) -> None:
    ci, admin = start()
    prepare(admin)

    with pytest.raises(ClientError) as refused:
        call(ci)

    error = refused.value.response["Error"]
    assert error["Code"] == "AccessDeniedException"
    assert error["Message"] == (
        "User: arn:aws:iam::000000000000:user/ci is not authorized to perform: iam:PassRole on "
        f"resource: {ROLES}/app-x because no identity-based policy allows the iam:PassRole action"
    )


@pytest.mark.parametrize("call", CALLS)
def test_roles_that_the_policy_names_are_passed(start: Start, call: Callable[[Any], Any]) -> None:
    ci, admin = start(PASSES_APPS)
    prepare(admin)

    assert call(ci)


def test_other_roles_are_not_passed(start: Start) -> None:
    ci, _ = start(PASSES_APPS)

    with pytest.raises(ClientError, match="role/database because no identity-based policy"):
        register(ci, taskRoleArn="app-x", executionRoleArn="database")


def test_service_that_keeps_its_definition_passes_no_role(start: Start) -> None:
    ci, admin = start()
    prepare(admin)
    admin.create_service(**SERVICE, desiredCount=0)

    assert ci.update_service(service="s", desiredCount=1)


@pytest.mark.parametrize(
    ("value", "may"), [("ecs-tasks.amazonaws.com", True), ("ec2.amazonaws.com", False)]
)
def test_policy_may_say_to_which_service_roles_are_passed(
    start: Start, value: str, may: bool
) -> None:
    condition = {"StringEquals": {"iam:PassedToService": value}}
    ci, _ = start({**PASSES_APPS, "Condition": condition})

    if may:
        assert register(ci, taskRoleArn="app-x")
        return
    with pytest.raises(ClientError, match="iam:PassRole"):
        register(ci, taskRoleArn="app-x")


def test_deny_wins(start: Start) -> None:
    ci, _ = start(PASSES_APPS, {**PASSES_APPS, "Effect": "Deny"})

    with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
        register(ci, taskRoleArn="app-x")


def test_definition_without_roles_needs_no_permission(start: Start) -> None:
    ci, _ = start()

    assert register(ci)


def test_setting_lets_keys_of_before_go_on(start: Start) -> None:
    ci, _ = start(check_pass_role=False)

    assert register(ci, taskRoleArn="app-x")
