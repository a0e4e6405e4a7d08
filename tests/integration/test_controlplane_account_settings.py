"""Account settings: of a principal, of the account, and what holds."""

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.controlplane import ControlPlane, StartControlPlane, write_keys
from tests.fixtures.ecs import kind_of

ROOT = "arn:aws:iam::000000000000:root"
ADMIN = "arn:aws:iam::000000000000:user/admin"
OTHER = "arn:aws:iam::000000000000:user/other"

KEYS = """
[[key]]
access_key_id = "AKIAADMINADMINADMIN0"
secret_access_key = "a-secret-of-the-admin-of-40-characters-0"
principal = "admin"

[[key]]
access_key_id = "AKIAOTHEROTHEROTHER0"
secret_access_key = "a-secret-of-another-of-some-40-chars-000"
principal = "other"

[principal.other]
policy = '{"Statement": {"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}}'
"""


def values(ecs: Any, **request: Any) -> dict[str, str]:
    pages = ecs.get_paginator("list_account_settings").paginate(
        **request, PaginationConfig={"PageSize": 4}
    )
    return {item["name"]: item["value"] for page in pages for item in page["settings"]}


@pytest.fixture
def two_principals(start_control_plane: StartControlPlane, state_dir: Path) -> ControlPlane:
    """A control plane with the principals `admin` and `other`; both may do everything."""
    write_keys(state_dir, KEYS)
    return start_control_plane()


def test_nothing_is_set_at_first_and_all_eleven_have_a_value(ecs: Any) -> None:
    effective = values(ecs, effectiveSettings=True)

    assert values(ecs) == {}
    assert len(effective) == 11
    assert effective["taskLongArnFormat"] == "enabled"
    assert effective["defaultLogDriverMode"] == "non-blocking"
    assert effective["fargateTaskRetirementWaitPeriod"] == "7"


def test_setting_is_put_shown_and_taken_back(ecs: Any) -> None:
    put = ecs.put_account_setting(name="containerInsights", value="enhanced")["setting"]
    shown = values(ecs)
    taken = ecs.delete_account_setting(name="containerInsights")["setting"]

    assert put == {
        "name": "containerInsights",
        "value": "enhanced",
        "principalArn": ADMIN,
        "type": "user",
    }
    assert shown == {"containerInsights": "enhanced"}
    assert taken["value"] == "disabled"
    assert values(ecs) == {}


def test_own_value_comes_before_that_of_the_account(ecs: Any) -> None:
    default = ecs.put_account_setting_default(name="containerInsights", value="enabled")
    ecs.put_account_setting(name="awsvpcTrunking", value="enabled", principalArn=ROOT)
    ecs.put_account_setting(name="containerInsights", value="enhanced")

    mine = values(ecs, effectiveSettings=True)
    others = values(ecs, effectiveSettings=True, principalArn=OTHER)

    assert default["setting"]["principalArn"] == ROOT
    assert (mine["containerInsights"], others["containerInsights"]) == ("enhanced", "enabled")
    assert (mine["awsvpcTrunking"], others["awsvpcTrunking"]) == ("enabled", "enabled")
    assert values(ecs, principalArn=ROOT) == {
        "containerInsights": "enabled",
        "awsvpcTrunking": "enabled",
    }


def test_settings_are_filtered_by_name_and_value(ecs: Any) -> None:
    named = values(ecs, effectiveSettings=True, name="awsvpcTrunking")
    other = values(ecs, effectiveSettings=True, name="awsvpcTrunking", value="enabled")

    assert (named, other) == ({"awsvpcTrunking": "disabled"}, {})
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.list_account_settings(value="enabled")


def test_pages_have_ten_settings_at_most(ecs: Any) -> None:
    first = ecs.list_account_settings(effectiveSettings=True)
    second = ecs.list_account_settings(effectiveSettings=True, nextToken=first["nextToken"])

    assert (len(first["settings"]), len(second["settings"])) == (10, 1)
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.list_account_settings(maxResults=11)


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        pytest.param("taskLongArnFormat", "disabled", "InvalidParameterException", id="short ARNs"),
        pytest.param("containerInsights", "on", "InvalidParameterException", id="not its value"),
        pytest.param("guardDutyActivate", "off", "InvalidParameterException", id="read-only"),
        pytest.param("fargateFIPSMode", "enabled", "UnsupportedFeatureException", id="FIPS"),
        pytest.param("tagResourceAuthorization", "on", "UnsupportedFeatureException", id="tags"),
        pytest.param(
            "defaultLogDriverMode", "blocking", "UnsupportedFeatureException", id="blocking loggers"
        ),
        pytest.param(
            "fargateTaskRetirementWaitPeriod", "14", "InvalidParameterException", id="only root"
        ),
    ],
)
def test_value_that_can_not_be_is_refused(name: str, value: str, kind: str, ecs: Any) -> None:
    with pytest.raises(ClientError) as refusal:
        ecs.put_account_setting(name=name, value=value)

    assert kind_of(refusal) == kind


@pytest.mark.one_store
@pytest.mark.parametrize(
    "arn",
    [
        pytest.param("admin", id="no ARN"),
        pytest.param("arn:aws:iam::999999999999:user/admin", id="other account"),
        pytest.param("arn:aws:iam::000000000000:group/all", id="group"),
        pytest.param(f"{ROOT}\n", id="line end"),
    ],
)
def test_what_is_no_principal_is_refused(arn: str, ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.list_account_settings(principalArn=arn)


@pytest.mark.one_store
@pytest.mark.parametrize("arn", [pytest.param(ROOT, id="root"), pytest.param(ADMIN, id="another")])
def test_only_the_admin_speaks_for_another_principal(
    arn: str, two_principals: ControlPlane
) -> None:
    other = two_principals.client("other")
    request = {"name": "containerInsights", "principalArn": arn}

    for call, more in (
        (other.put_account_setting, {"value": "enabled"}),
        (other.delete_account_setting, {}),
        (other.list_account_settings, {}),
    ):
        with pytest.raises(other.exceptions.AccessDeniedException):
            call(**request, **more)

    own = other.put_account_setting(name="containerInsights", value="enabled", principalArn=OTHER)
    assert own["setting"]["principalArn"] == OTHER
    assert values(two_principals.client(), principalArn=OTHER) == {"containerInsights": "enabled"}
