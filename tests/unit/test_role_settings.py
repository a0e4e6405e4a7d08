"""Which entry of `local_roles` stands for a role, and what an entry may say."""

import pytest
from pydantic import ValidationError

from fargate_agent.controlplane.role_settings import LocalRoleSettings, find_local_role
from fargate_agent.controlplane.settings import ControlPlaneSettings

ARN = "arn:aws:iam::123456789012:role/team/app-web"


def chosen(*patterns: str) -> str | None:
    roles = {pattern: LocalRoleSettings(profile=f"of {pattern}") for pattern in patterns}
    found = find_local_role(roles, ARN)
    return None if found is None else found.profile


@pytest.mark.parametrize(
    ("patterns", "fits"),
    [
        pytest.param([ARN, "app-web", "*"], ARN, id="ARN first"),
        pytest.param(["app-web", "*app-web*"], "app-web", id="name before patterns"),
        pytest.param(["*", "app-*", "a*"], "app-*", id="longest pattern"),
        pytest.param(["arn:aws:iam::*:role/team/*"], "arn:aws:iam::*:role/team/*", id="of ARNs"),
        pytest.param(["app", "web", "team", "app-w", "b*", "app.web"], None, id="none"),
    ],
)
def test_entry_that_names_a_role_best_counts(patterns: list[str], fits: str | None) -> None:
    assert chosen(*patterns) == (None if fits is None else f"of {fits}")


def test_endpoint_urls_are_named_as_variables_are() -> None:
    role = LocalRoleSettings(
        endpoint_url="http://here:1",
        endpoint_urls={"s3": "http://there:2", "secrets manager": "http://there:3"},
    )

    assert role.all_endpoint_urls == {
        "": "http://here:1",
        "S3": "http://there:2",
        "SECRETS_MANAGER": "http://there:3",
    }


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        pytest.param({}, "says nothing", id="nothing"),
        pytest.param({"access_key_id": "AK"}, "belong together", id="half"),
        pytest.param({"secret_access_key": "hush"}, "belong together", id="other half"),
        pytest.param({"session_token": "hush", "profile": "p"}, "needs access_key_id", id="token"),
        pytest.param(
            {"profile": "p", "access_key_id": "AK", "secret_access_key": "hush"},
            "set one of them",
            id="both",
        ),
        pytest.param({"endpoint_url": "here"}, "must be http://HOST", id="URL"),
        pytest.param({"endpoint_urls": {"s3/x": "http://h"}}, "must be a service", id="service"),
        pytest.param({"profil": "dev"}, "Extra inputs", id="unknown"),
    ],
)
def test_entry_that_makes_no_sense_is_refused_without_its_secret(
    members: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint) as caught:
        LocalRoleSettings.model_validate(members)

    assert "hush" not in str(caught.value)


def test_entry_does_not_show_its_secrets() -> None:
    role = LocalRoleSettings.model_validate(
        {"access_key_id": "AK", "secret_access_key": "hush", "session_token": "hush"}
    )

    assert "hush" not in repr(role)


def test_role_that_no_name_can_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be the name or the ARN of a role"):
        ControlPlaneSettings.model_validate({"local_roles": {"a b": {"profile": "dev"}}})


@pytest.mark.parametrize(
    ("members", "is_local"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"aws_endpoint_url": "http://here"}, False, id="URL"),
        pytest.param({"aws_credentials_file": "/keys"}, False, id="keys"),
        pytest.param({"aws_credentials_file": "/keys", "aws": "local"}, True, id="local"),
        pytest.param({"aws": "real"}, False, id="real"),
    ],
)
def test_machine_does_without_aws_unless_something_of_it_is_set(
    members: dict[str, str], is_local: bool
) -> None:
    assert ControlPlaneSettings.model_validate(members).is_local is is_local
