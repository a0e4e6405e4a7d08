"""What stands for roles on this machine, as the settings of the control plane tell it."""

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from fargate_agent.setting_values import Url, matching

RolePattern = Annotated[
    str,
    matching(
        r"[\w+=,.@:/*-]{1,2048}", "must be the name or the ARN of a role; * stands for anything"
    ),
]
"""Source: IAM API reference, `RoleName`, `Path`."""

Service = Annotated[
    str,
    matching(
        r"[A-Za-z0-9 _-]{1,64}",
        "must be a service as in AWS_ENDPOINT_URL_SECRETS_MANAGER, e.g. secrets_manager",
    ),
    AfterValidator(lambda name: re.sub("[ -]", "_", name).upper()),
]
"""Source: AWS SDKs and Tools reference guide, service-specific endpoints."""


class LocalRoleSettings(BaseModel):
    """What stands for a role."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    profile: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Profile of the shared credentials file whose keys the tasks get: of `aws_credentials_file`,
    else of `AWS_SHARED_CREDENTIALS_FILE` or `~/.aws/credentials` of the control plane's user."""
    access_key_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The keys themselves, in place of a profile."""
    secret_access_key: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Belongs to `access_key_id`."""
    session_token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """Belongs to `access_key_id`, of temporary keys."""
    endpoint_url: Url | None = None
    """What the tasks' `AWS_ENDPOINT_URL` is."""
    endpoint_urls: dict[Service, Url] = {}
    """The same for single services: `s3` is `AWS_ENDPOINT_URL_S3`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        if self.profile is not None and self.access_key_id is not None:
            raise ValueError("has both profile and access_key_id: set one of them")
        if not (self.profile or self.access_key_id or self.endpoint_url or self.endpoint_urls):
            raise ValueError("says nothing: set profile, access_key_id or endpoint_url")
        return self

    @property
    def all_endpoint_urls(self) -> dict[str, str]:
        """By what stands behind `AWS_ENDPOINT_URL_`; under an empty name for all other services."""
        rest = {} if self.endpoint_url is None else {"": self.endpoint_url}
        return {**rest, **self.endpoint_urls}


def find_local_role(
    roles: Mapping[str, LocalRoleSettings], role_arn: str
) -> LocalRoleSettings | None:
    """Return what stands for a role; None: nothing does.

    The whole ARN comes before the name, and that before patterns, of which the longest counts.
    """
    name = role_arn.rpartition("/")[2]
    for exact in (role_arn, name):
        if exact in roles:
            return roles[exact]
    fitting = [
        pattern
        for pattern in roles
        if "*" in pattern and any(_fits(pattern, text) for text in (role_arn, name))
    ]
    return roles[max(fitting, key=len)] if fitting else None


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
