"""Account settings: kept and shown as ECS does.

A principal has its own values; where it has none, those of the account, which are the root user's;
where that has none, the default of ECS. The principal `admin` may do what ECS leaves to the root
user. Nothing here depends on a setting, so a value that would change what a task does or who may do
what is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.access.keys import ADMIN
from fargate_agent.controlplane.errors import ApiError, invalid_parameter, unsupported
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import cut, parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.model import AccountSetting
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import Store
from fargate_agent.controlplane.validate import Json

MAX_RESULTS: Final = 10
"""Source: ECS API, ListAccountSettings.maxResults."""

_ACCOUNT: Final = ""
"""The principal of the account's own values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One setting that ECS has."""

    default: str
    allowed: frozenset[str]
    refused: frozenset[str] = frozenset()
    """Values that ECS takes, and that would not be true here."""


def _kind(default: str, *others: str, refused: str | None = None) -> _Kind:
    return _Kind(
        default=default,
        allowed=frozenset({default, *others}),
        refused=frozenset(() if refused is None else (refused,)),
    )


KINDS: Final[Mapping[str, _Kind]] = {
    "serviceLongArnFormat": _kind("enabled"),
    "taskLongArnFormat": _kind("enabled"),
    "containerInstanceLongArnFormat": _kind("enabled"),
    "awsvpcTrunking": _kind("disabled", "enabled"),
    "containerInsights": _kind("disabled", "enabled", "enhanced"),
    "fargateFIPSMode": _kind("disabled", refused="enabled"),
    "tagResourceAuthorization": _kind("off", refused="on"),
    "fargateTaskRetirementWaitPeriod": _kind("7", "0", "14"),
    "guardDutyActivate": _kind("off"),
    "defaultLogDriverMode": _kind("non-blocking", refused="blocking"),
    "fargateEventWindows": _kind("disabled", "enabled"),
}
"""Source: ECS API, PutAccountSetting; which is the default where it says so, else unverified."""

_READ_ONLY: Final = "guardDutyActivate"
"""AWS manages it. Source: ECS API, Setting.type."""
_OF_ROOT: Final = "fargateTaskRetirementWaitPeriod"
"""Only the root user sets it. Source: ECS API, PutAccountSetting.principalArn."""


async def list_account_settings(plane: Plane, call: Call) -> Json:
    """List what a principal has set, or what holds for it."""
    request = call.request
    page = parse_page(request, MAX_RESULTS)
    if "value" in request and "name" not in request:
        raise invalid_parameter("The value of a setting needs its name.")  # unverified
    principal = _find_principal(plane.arns, call.caller, request)
    async with plane.store.read() as session:
        settings = await _read(session, principal)
        if request.get("effectiveSettings", False):
            settings = {name: await _effective(session, principal, name) for name in KINDS}
    names = sorted(
        name
        for name, value in settings.items()
        if name == request.get("name", name) and value == request.get("value", value)
    )
    return page.render(
        cut(names, page),
        "settings",
        lambda name: _render(plane.arns, principal, name, settings[name]),
    )


async def put_account_setting(plane: Plane, call: Call) -> Json:
    """Set a value for a principal; for the root user it is the account's."""
    principal = _find_principal(plane.arns, call.caller, call.request)
    if call.request["name"] == _OF_ROOT and principal != _ACCOUNT:
        raise invalid_parameter(f"{_OF_ROOT} can only be set by the root user.")  # unverified
    return await _put(plane.arns, plane.store, call, principal)


async def put_account_setting_default(plane: Plane, call: Call) -> Json:
    """Set a value for all who have none of their own."""
    return await _put(plane.arns, plane.store, call, _ACCOUNT)


async def delete_account_setting(plane: Plane, call: Call) -> Json:
    """Take back what a principal has set; the answer says what holds now."""
    name = call.request["name"]
    principal = _find_principal(plane.arns, call.caller, call.request)
    async with plane.store.write() as session:
        row = await session.get(AccountSetting, (principal, name))
        if row is not None:
            await session.delete(row)
            await session.flush()
        value = await _effective(session, principal, name)
    return {"setting": _render(plane.arns, principal, name, value)}


async def _put(arns: Arns, store: Store, call: Call, principal: str) -> Json:
    name, value = call.request["name"], call.request["value"]
    _check(name, value)
    async with store.write() as session:
        await session.merge(AccountSetting(principal=principal, name=name, value=value))
    return {"setting": _render(arns, principal, name, value)}


def _check(name: str, value: str) -> None:
    """Return if a setting can have the value. The texts are unverified."""
    kind = KINDS[name]
    if name == _READ_ONLY:
        raise invalid_parameter(f"{name} is managed by AWS and can't be changed.")
    if value in kind.refused:
        raise unsupported(f"{name} can't be {value} here.")
    if value not in kind.allowed:
        raise invalid_parameter(f"{name} must be one of: {', '.join(sorted(kind.allowed))}")


def _find_principal(arns: Arns, caller: Caller, request: Json) -> str:
    """Return the ARN of the principal that is meant; that of the root user is the account's.

    Raises:
        ApiError: it is no principal of the account, or the caller may not speak for it.
    """
    own = arns.user(caller.principal)
    arn: str = request.get("principalArn", own)
    path = r"(root|(user|role)/[\w+=,.@/-]{1,576})"
    if not re.fullmatch(rf"arn:aws:iam::{arns.account}:{path}", arn, re.ASCII):
        raise invalid_parameter("Invalid principalArn.")  # unverified
    if arn != own and caller.principal != ADMIN:
        raise ApiError(  # unverified
            "AccessDeniedException",
            f"User: {own} can't use the account settings of another principal.",
        )
    return _ACCOUNT if arn == _root(arns) else arn


async def _read(session: Session, principal: str) -> dict[str, str]:
    chosen = select(AccountSetting).where(AccountSetting.principal == principal)
    return {row.name: row.value for row in await session.scalars(chosen)}


async def _effective(session: Session, principal: str, name: str) -> str:
    for whose in (principal, _ACCOUNT):
        row = await session.get(AccountSetting, (whose, name))
        if row is not None:
            return row.value
    return KINDS[name].default


def _render(arns: Arns, principal: str, name: str, value: str) -> Json:
    return {
        "name": name,
        "value": value,
        "principalArn": principal or _root(arns),
        "type": "aws_managed" if name == _READ_ONLY else "user",
    }


def _root(arns: Arns) -> str:
    return f"arn:aws:iam::{arns.account}:root"


OPERATIONS: Final[dict[str, Operation]] = {
    "DeleteAccountSetting": delete_account_setting,
    "ListAccountSettings": list_account_settings,
    "PutAccountSetting": put_account_setting,
    "PutAccountSettingDefault": put_account_setting_default,
}
