"""How the agent's things on the host are named, so that each can be told to be its own.

Every name follows from the agent's instance and from what the thing is for. An interface has room
for 15 characters: `fg`, four of the instance, a letter, eight of the purpose. The interface's alias
says the same in full, for people and for the sweep.
"""

import base64
import hashlib
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

NETNS_PREFIX: Final = "fargate-"
"""How `fargate_agent.plan` names the network namespace of a task."""


def name_instance(state_dir: Path) -> str:
    """Tell the agent of one state directory from others on the machine."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]


def ours_prefix(instance: str) -> str:
    """What the name of every interface of an agent begins with."""
    return f"fg{hashlib.sha256(instance.encode()).hexdigest()[:4]}"


def bridge_name(instance: str, gateway: IPv4Interface) -> str:
    """Name the bridge of a subnet; the same for all its ENIs."""
    return f"{ours_prefix(instance)}b{_digest(str(gateway))}"


def veth_name(instance: str, eni_id: str) -> str:
    """Name the host's end of an ENI."""
    return f"{ours_prefix(instance)}v{_digest(eni_id)}"


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


def nat_table_name(bridge: str) -> str:
    """Name the packet filter table of a bridge."""
    return f"fargate-{bridge}"


def bridge_mac(bridge: str) -> str:
    """Choose the MAC of a bridge: unicast, locally administered."""
    digest = hashlib.sha256(bridge.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def instance_alias(instance: str) -> str:
    """Mark what belongs to an agent as a whole."""
    return f"fargate:{instance}"


def eni_alias(instance: str, netns: Path, eni_id: str) -> str:
    """Mark the host's end of an ENI."""
    return f"{netns_alias(instance, netns.name)}:{eni_id}"


def netns_alias(instance: str, netns_name: str) -> str:
    """What the mark of every ENI of one network namespace begins with."""
    return f"{instance_alias(instance)}:{netns_name}"


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(digest[:5]).decode().lower()
