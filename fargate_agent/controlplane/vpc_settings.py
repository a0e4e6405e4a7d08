"""The VPC as the settings of the control plane tell it: subnets, security groups, their rules."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from fargate_agent.setting_values import matching
from fargate_agent.wire.eni_kinds import CNI_NETWORK_NAME, EniKind

DEFAULT_VPC: Final = "vpc-default"
DEFAULT_SUBNET: Final = "subnet-default"
DEFAULT_SECURITY_GROUP: Final = "sg-default"
DEFAULT_SUBNET_PREFIX: Final = 20
"""As in a default VPC of AWS. Source: Amazon VPC user guide, "Default VPCs"."""

MIN_SUBNET_PREFIX: Final = 16
MAX_SUBNET_PREFIX: Final = 28
"""Largest and smallest subnet. Source: Amazon VPC user guide, "Subnet CIDR blocks"."""

IPV6_SUBNET_PREFIX: Final = 64
"""What an interface needs to make addresses of its own. Source: RFC 4291, section 2.5.1."""

ALL_PORTS: Final = 65535

Protocol = Literal["tcp", "udp", "icmp", "icmpv6", "-1"]
"""`-1` is all of them. Source: EC2 API, IpPermission."""


def _id(prefix: str) -> AfterValidator:
    return matching(
        f"{prefix}-[a-z0-9-]{{1,64}}",
        f"must be {prefix}- and 1 to 64 lower-case letters, digits or hyphens",
    )


VpcId = Annotated[str, _id("vpc")]
SubnetId = Annotated[str, _id("subnet")]
SecurityGroupId = Annotated[str, _id("sg")]
GroupText = Annotated[
    str,
    matching(
        r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}",
        "must be 1 to 255 letters, digits, spaces or ._-:/()#,@[]+=&;{}!$*",
    ),
]
"""Source: EC2 API, CreateSecurityGroup, for names and descriptions in a VPC."""


MAC: Final = "[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
Mac = Annotated[str, matching(MAC, "must be a MAC address such as 52:54:00:12:34:56")]

MAX_VLAN_ID: Final = 4094
"""Source: IEEE 802.1Q, 9.6."""

_KEYS_OF_KINDS: Final = (
    (EniKind.MACVLAN, "parent"),
    (EniKind.NIC, "nics"),
    (EniKind.VLAN, "trunk"),
    (EniKind.VLAN, "vlan_ids"),
    (EniKind.CNI, "network"),
)
"""Which subnets have what."""


def _read_range(value: object) -> object:
    """Read a range at once: of a union each part has a complaint of its own."""
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError("must be a range such as 10.0.0.0/8") from None


Range = Annotated[IPv4Network | IPv6Network, BeforeValidator(_read_range)]


def read_vlan_ids(text: str) -> range:
    """Return the VLANs of a range such as `100-199`; none if there can't be such."""
    first, _, last = text.partition("-")
    ids = range(int(first), int(last or first) + 1)
    return ids if ids and ids[0] >= 1 and ids[-1] <= MAX_VLAN_ID else range(0)


class SubnetSettings(BaseModel):
    """A subnet that tasks can be put into."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: SubnetId
    """The id that RunTask names, `subnet-…`."""
    cidr: IPv4Network
    """Range of the subnet, /16 to /28. Of kind `veth` it may be outside of `vpc_cidr`, and is
    then a further range of the VPC."""
    ipv6_cidr: IPv6Network | None = None
    """IPv6 range, a /64. Without it tasks have no IPv6 address."""
    kind: EniKind = EniKind.VETH
    """How tasks are connected: `veth` by the agent's machine, which routes, `macvlan` as machines
    on the network of `parent`, `nic` by one of the `nics` each, `vlan` by a VLAN of `trunk`
    each, `cni` by the CNI plugins of `network`.
    """
    parent: (
        Annotated[str, matching(r"[^\s/:]{1,15}", "must be the name of a network interface")] | None
    ) = None
    """The network interface of the agent's machine that a macvlan hangs on."""
    nics: tuple[Mac, ...] = ()
    """MAC addresses of network interfaces of agents' machines, each for one task at a time."""
    trunk: (
        Annotated[
            str,
            matching(
                rf"[^\s/:]{{1,15}}|{MAC}", "must be the name or MAC address of a network interface"
            ),
        ]
        | None
    ) = None
    """The network interface of the agent's machine, by name or MAC address, that VLANs hang on."""
    vlan_ids: (
        Annotated[
            str, matching(r"\d{1,4}(-\d{1,4})?", "must be a number, or two with a hyphen between")
        ]
        | None
    ) = None
    """The VLANs of the trunk that tasks can have, one each, such as `100-199`."""
    network: Annotated[str, matching(CNI_NETWORK_NAME, "must be the name of a network")] | None = (
        None
    )
    """The network of the agent's machine whose CNI plugins connect tasks."""
    gateway: IPv4Address | None = None
    """Router of the subnet. Without it: the first address of `cidr`."""
    gateway6: IPv6Address | None = None
    """IPv6 router. Without it: the first address of `ipv6_cidr` with veth, none with macvlan."""
    mtu: Annotated[int, Field(ge=576, le=65535)] | None = None
    """The largest packet, in bytes. Without it: 9001 with veth, 1500 with the others."""
    nat: bool = True
    """Whether tasks reach other networks than their VPC, by an address of the agent's machine.
    `false` makes a private subnet, of kind `veth` only."""
    dns: tuple[IPv4Address, ...] = ()
    """DNS servers of the tasks. Without it: the resolver of the VPC."""
    availability_zone: str | None = None
    """The zone that EC2's answers name. Without it: the first one of the region."""

    @model_validator(mode="after")
    def _check(self) -> "SubnetSettings":
        if not MIN_SUBNET_PREFIX <= self.cidr.prefixlen <= MAX_SUBNET_PREFIX:
            raise ValueError(
                f"{self.id}: cidr {self.cidr} must be between "
                f"/{MIN_SUBNET_PREFIX} and /{MAX_SUBNET_PREFIX}"
            )
        ends = (self.cidr.network_address, self.cidr.broadcast_address)
        if self.gateway is not None and (self.gateway not in self.cidr or self.gateway in ends):
            raise ValueError(f"{self.id}: gateway {self.gateway} is not a host of {self.cidr}")
        return self

    @model_validator(mode="after")
    def _check_kind(self) -> "SubnetSettings":
        for kind, name in _KEYS_OF_KINDS:
            if (self.kind is kind) != bool(getattr(self, name)):
                wanted = "needs" if self.kind is kind else "has no"
                raise ValueError(f"{self.id}: kind {self.kind} {wanted} {name}")
        if not self.nat and self.kind is not EniKind.VETH:
            raise ValueError(f"{self.id}: kind {self.kind} has no nat")
        for mac in self.nics:
            if self.nics.count(mac) > 1:
                raise ValueError(f"{self.id}: nics has {mac} twice")
        if self.vlan_ids is not None and not read_vlan_ids(self.vlan_ids):
            first, _, last = self.vlan_ids.partition("-")
            if last and int(last) < int(first):
                raise ValueError(
                    f"{self.id}: vlan_ids {self.vlan_ids} runs backwards, the lower one comes first"
                )
            raise ValueError(f"{self.id}: vlan_ids {self.vlan_ids} is not within 1-{MAX_VLAN_ID}")
        return self

    @model_validator(mode="after")
    def _check_ipv6(self) -> "SubnetSettings":
        if self.ipv6_cidr is None:
            if self.gateway6 is not None:
                raise ValueError(f"{self.id}: gateway6 needs an ipv6_cidr")
            return self
        if self.ipv6_cidr.prefixlen != IPV6_SUBNET_PREFIX:
            raise ValueError(
                f"{self.id}: ipv6_cidr {self.ipv6_cidr} must be a /{IPV6_SUBNET_PREFIX}"
            )
        if self.ipv6_cidr.is_multicast or self.ipv6_cidr.is_link_local:
            raise ValueError(f"{self.id}: ipv6_cidr {self.ipv6_cidr} is not a range for hosts")
        # The first address of a range means any of its routers, so no one can have it.
        routers = self.ipv6_cidr.network_address
        if self.gateway6 is not None and (
            self.gateway6 not in self.ipv6_cidr or self.gateway6 == routers
        ):
            raise ValueError(
                f"{self.id}: gateway6 {self.gateway6} is not a host of {self.ipv6_cidr}"
            )
        return self


class RuleSettings(BaseModel):
    """What a security group lets in or out."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    protocol: Protocol
    """`tcp`, `udp`, `icmp`, `icmpv6`, or `-1` for all of them."""
    from_port: Annotated[int, Field(ge=-1, le=ALL_PORTS)] = -1
    """First port; of ICMP the type, and -1 is all. Not with protocol `-1`."""
    to_port: Annotated[int, Field(ge=-1, le=ALL_PORTS)] = -1
    """Last port; of ICMP the code, and -1 is all."""
    cidrs: tuple[Range, ...] = ()
    """Ranges that are meant."""
    groups: tuple[SecurityGroupId, ...] = ()
    """Security groups whose members are meant."""

    @model_validator(mode="after")
    def _check(self) -> "RuleSettings":
        ports = (self.from_port, self.to_port)
        if self.protocol in {"tcp", "udp"}:
            names = ("from_port", "to_port")
            if missing := [name for name, port in zip(names, ports, strict=True) if port < 0]:
                raise ValueError(f"{self.protocol} needs {' and '.join(missing)}")
            if self.from_port > self.to_port:
                raise ValueError(
                    f"from_port {self.from_port} must not be above to_port {self.to_port}"
                )
        if self.protocol == "-1" and ports != (-1, -1):
            raise ValueError("protocol -1 means all ports, so it has no from_port and to_port")
        if not self.cidrs and not self.groups:
            raise ValueError("cidrs or groups must say whom the rule is about")
        return self


ALL_OUT: Final = (
    RuleSettings(protocol="-1", cidrs=(IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))),
)
"""Source: Amazon VPC user guide, "Default security groups"."""


class SecurityGroupSettings(BaseModel):
    """A security group that RunTask may name."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    id: SecurityGroupId
    """The id that RunTask names, `sg-…`."""
    name: GroupText | None = None
    """Without it: the id."""
    description: GroupText | None = None
    """Without it: the name."""
    ingress: tuple[RuleSettings, ...] = ()
    """Rules for what comes in."""
    egress: tuple[RuleSettings, ...] = ALL_OUT
    """Rules for what goes out. Without it: everything may."""


_DEFAULT_GROUP: Final = SecurityGroupSettings(
    id=DEFAULT_SECURITY_GROUP,
    name="default",
    description="default VPC security group",
    ingress=(RuleSettings(protocol="-1", groups=(DEFAULT_SECURITY_GROUP,)),),
)
"""Source: Amazon VPC user guide, "Default security groups"."""


def complete_subnets(
    subnets: tuple[SubnetSettings, ...], cidr: IPv4Network, ipv6_cidr: IPv6Network | None
) -> tuple[SubnetSettings, ...]:
    """Return the subnets with `subnet-default`, which is the first range of the VPC if not set."""
    if any(subnet.id == DEFAULT_SUBNET for subnet in subnets):
        return subnets
    prefix = max(cidr.prefixlen, DEFAULT_SUBNET_PREFIX)
    first = SubnetSettings(
        id=DEFAULT_SUBNET,
        cidr=next(cidr.subnets(new_prefix=prefix)),
        ipv6_cidr=(
            None if ipv6_cidr is None else next(ipv6_cidr.subnets(new_prefix=IPV6_SUBNET_PREFIX))
        ),
    )
    return (first, *subnets)


def complete_security_groups(
    groups: tuple[SecurityGroupSettings, ...],
) -> tuple[SecurityGroupSettings, ...]:
    """Return the security groups with `sg-default`, which lets out everything if not set."""
    if any(group.id == DEFAULT_SECURITY_GROUP for group in groups):
        return groups
    return (_DEFAULT_GROUP, *groups)


def check_vpc_cidr(cidr: IPv4Network | IPv6Network) -> None:
    """Return if a subnet fits into the range of a VPC.

    Raises:
        ValueError: it is too small.
    """
    longest = MAX_SUBNET_PREFIX if cidr.version == 4 else IPV6_SUBNET_PREFIX
    if cidr.prefixlen > longest:
        raise ValueError(f"{cidr} is smaller than a /{longest}")


def check_subnets(subnets: Sequence[SubnetSettings]) -> None:
    """Return if the subnets can stand beside each other.

    Raises:
        ValueError: two have an id or a range in common.
    """
    for position, subnet in enumerate(subnets):
        for other in subnets[:position]:
            if subnet.id == other.id:
                raise ValueError(f"two subnets have the id {subnet.id}")
            _check_apart(other, subnet)


def check_security_groups(groups: Sequence[SecurityGroupSettings]) -> None:
    """Return if the security groups can stand beside each other.

    Raises:
        ValueError: two have an id or a name in common, or a rule names one that isn't there.
    """
    ids = [group.id for group in groups]
    names = [group.name or group.id for group in groups]
    for what, values in (("id", ids), ("name", names)):
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"two security groups have the {what} {twice}")
    for group in groups:
        for rule in (*group.ingress, *group.egress):
            if unknown := set(rule.groups) - set(ids):
                raise ValueError(f"{group.id}: a rule names {min(unknown)}, which isn't there")


def _check_apart(one: SubnetSettings, other: SubnetSettings) -> None:
    ranges = [(one.cidr, other.cidr)]
    if one.ipv6_cidr is not None and other.ipv6_cidr is not None:
        ranges.append((one.ipv6_cidr, other.ipv6_cidr))  # type: ignore[arg-type]
    for first, second in ranges:
        if first.overlaps(second):
            raise ValueError(f"subnets {one.id} ({first}) and {other.id} ({second}) overlap")
    if twice := set(one.nics) & set(other.nics):
        raise ValueError(f"subnets {one.id} and {other.id} both have the NIC {min(twice)}")
    if one.trunk is not None and one.trunk == other.trunk:
        ids = [set(read_vlan_ids(subnet.vlan_ids or "0")) for subnet in (one, other)]
        if ids[0] & ids[1]:
            raise ValueError(f"subnets {one.id} and {other.id} have VLANs of {one.trunk} in common")
