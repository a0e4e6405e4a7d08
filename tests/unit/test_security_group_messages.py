"""Rules of security groups that no packet filter can have are refused where they are read."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from fargate_agent.network.firewall.memory import read_groups, write_groups
from fargate_agent.network.firewall.rules import render_ingress
from fargate_agent.plan.security_groups import plan_groups
from fargate_agent.wire.security_groups import SecurityGroupMessage

LONGEST = f"sg-{'a' * 64}"
ANYWHERE = ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize(
    "rule",
    [
        {"protocol": "256"},
        {"protocol": "999"},
        {"protocol": "icmp", "fromPort": 256},
        {"protocol": "icmp", "fromPort": 3, "toPort": 256},
        {"protocol": "58", "fromPort": 300},
        {"protocol": "tcp", "groups": ["sg-1\n"]},
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        SecurityGroupMessage.model_validate({"id": "sg-1", "ingress": [rule]})

    file = tmp_path / "groups.json"
    named = {"from_port": rule.get("fromPort", -1), "to_port": rule.get("toPort", -1)}
    kept = {"id": "sg-1", "ingress": [rule | named], "egress": [], "members": []}
    file.write_text(json.dumps({"groups": [kept]}))
    assert read_groups(file) == {}


@pytest.mark.parametrize("group_id", ["", "sg-", f"{LONGEST}a", "sg-A", "sg-a b", "sg-a\n"])
def test_an_id_that_cannot_be_in_a_name_is_refused(group_id: str) -> None:
    with pytest.raises(ValidationError):
        SecurityGroupMessage(id=group_id)


def test_the_largest_rules_are_kept_and_rendered(tmp_path: Path) -> None:
    message = SecurityGroupMessage.model_validate(
        {
            "id": LONGEST,
            "ingress": [
                {"protocol": "255", "cidrs": ANYWHERE},
                {"protocol": "icmp", "fromPort": 255, "toPort": 255, "cidrs": ANYWHERE},
                {"protocol": "tcp", "fromPort": 65535, "toPort": 65535, "groups": [LONGEST]},
            ],
            "members": ["10.0.0.1", "fd00::1"],
        }
    )
    groups = plan_groups([message])
    file = tmp_path / "groups.json"

    write_groups(file, groups)

    assert read_groups(file) == {LONGEST: groups[0]}
    assert len(list(render_ingress(groups[0]))) == 5
