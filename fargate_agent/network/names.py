"""How the agent's things on the host are named, so that each can be told to be its own.

An interface has room for 15 characters: `fg`, four of the instance, a letter, eight of a number.
Whose it is stands in its alias, for people and for the sweep.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

NETNS_PREFIX: Final = "fargate-"
"""How `fargate_agent.plan` names the network namespace of a task."""

AGENT_PREFIXES: Final = tuple(f"fg{digit}" for digit in "0123456789abcdef")
"""What the names of interfaces of all agents begin with."""
FIRST_RULE, RULES = 8_000, 6
"""The first priority of a rule of routing of any agent, and how many each of 4,096 has."""
_OF_AGENTS: Final = re.compile(r"fg[0-9a-f]{4}[a-z].+")


def name_instance(state_dir: Path) -> str:
    """Tell the agent of one state directory from others on the machine."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]


def ours_prefix(instance: str) -> str:
    """What the name of every interface of an agent begins with."""
    return f"fg{hashlib.sha256(instance.encode()).hexdigest()[:4]}"


def is_of_agent(name: str) -> bool:
    """Whether an interface is one of this agent or of another on the machine, by its name."""
    return _OF_AGENTS.fullmatch(name) is not None


def bridge_prefix(instance: str) -> str:
    """What the names of bridges begin with, of which older agents had one for each subnet."""
    return f"{ours_prefix(instance)}b"


def host_end_name(instance: str, number: int) -> str:
    """Name the host's end of an ENI. It is made before it is known whose it is: see `eni_alias`."""
    return f"{host_end_prefix(instance)}{number:08x}"


def host_end_prefix(instance: str) -> str:
    """What the name of every host's end begins with."""
    return f"{ours_prefix(instance)}v"


def routing_table(instance: str) -> int:
    """Number the routing table of an agent's ranges that are unreachable."""
    return 0xF000_0000 + int(hashlib.sha256(instance.encode()).hexdigest()[:4], 16)


def first_rule_priority(instance: str) -> int:
    """Number the first of an agent's four rules of routing; `RULES` numbers are its own.

    They come before the kernel's, the first of which is 32766, and after those of priorities that
    people choose.
    """
    return FIRST_RULE + RULES * int(hashlib.sha256(instance.encode()).hexdigest()[:3], 16)


def metadata_netns_name(instance: str) -> str:
    """Name the network namespace in which an agent answers its tasks about themselves."""
    return f"{NETNS_PREFIX}metadata-{instance}"


def metadata_end_name(netns: Path) -> str:
    """Name the end, in that namespace, of the interface that leads to a task.

    By the number of the task's namespace, which no other has as long as an interface is in it.

    Raises:
        OSError: there is no such namespace.
    """
    return f"task-{netns.stat().st_ino:x}"


def firewall_table_name(instance: str) -> str:
    """Name the packet filter table of an agent."""
    return f"fargate-{instance}"


def nat_table_name(bridge: str) -> str:
    """Name the packet filter table that an older agent gave a bridge."""
    return f"fargate-{bridge}"


def instance_alias(instance: str) -> str:
    """Mark what belongs to an agent as a whole."""
    return f"fargate:{instance}"


def eni_alias(instance: str, netns: Path, eni_id: str) -> str:
    """Mark the host's end of an ENI."""
    return f"{netns_alias(instance, netns.name)}:{eni_id}"


def netns_alias(instance: str, netns_name: str) -> str:
    """What the mark of every ENI of one network namespace begins with."""
    return f"{instance_alias(instance)}:{netns_name}"
