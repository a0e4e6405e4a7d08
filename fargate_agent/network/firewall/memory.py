"""What an agent knows of security groups, over its restarts."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final

from fargate_agent.files import replace_file
from fargate_agent.plan.security_groups import GroupPlan, RulePlan, plan_groups
from fargate_agent.wire.security_groups import SecurityGroupMessage

log = logging.getLogger(__name__)

FILE: Final = "security-groups.json"
"""Below the state directory."""


def read_groups(file: Path) -> dict[str, GroupPlan]:
    """Return the groups in a file by id; none if it isn't there or makes no sense. Blocks."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        groups = plan_groups(SecurityGroupMessage(**one) for one in document["groups"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error(
            "%s can't be read, so its security groups let nothing new pass until the control "
            "plane sends them: %s",
            file.name,
            error,
        )
        return {}
    return {group.id: group for group in groups}


def write_groups(file: Path, groups: Iterable[GroupPlan]) -> None:
    """Write groups down for the next agent. Blocks.

    Raises:
        OSError: the file can't be written; what it held is still there.
    """
    text = json.dumps({"groups": [_render_group(group) for group in groups]})
    replace_file(file, f"{text}\n", durable=False)


def _render_group(group: GroupPlan) -> Mapping[str, Any]:
    return {
        "id": group.id,
        "ingress": [_render_rule(rule) for rule in group.ingress],
        "egress": [_render_rule(rule) for rule in group.egress],
        "members": [str(address) for address in sorted(group.members, key=_order)],
    }


def _render_rule(rule: RulePlan) -> Mapping[str, Any]:
    return {**asdict(rule), "cidrs": [str(cidr) for cidr in rule.cidrs]}


def _order(address: IPv4Address | IPv6Address) -> tuple[int, int]:
    return address.version, int(address)
