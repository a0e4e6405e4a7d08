"""The resolver of a VPC, without sockets: what it says of messages, names and zones."""

import asyncio
import os
import random
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest

from fargate_agent.plan import plan_task
from fargate_agent.plan.names import RecordPlan, ZonePlan
from fargate_agent.vpc.resolver import Resolver
from fargate_agent.vpc.shares import LEAST, MOST, Shares
from fargate_agent.vpc.upstream import Upstream, UpstreamError
from fargate_agent.vpc.zones import Asker, Zones
from tests.messages import container_json, eni_json, site, task_message

ASKER = Asker(
    task_id="1",
    vpc_id="vpc-1",
    ranges=(IPv4Network("10.0.0.0/16"),),
    domain=dns.name.from_text("ec2.internal"),
)


class Silent(Upstream):
    """No server of the machine answers."""

    def __init__(self) -> None:
        super().__init__(tuple)

    async def ask(self, query: bytes, *, by_tcp: bool = False) -> bytes:
        raise UpstreamError("no answer")


def zone(*records: RecordPlan, vpc_id: str = "vpc-1", name: str = "local") -> ZonePlan:
    return ZonePlan(vpc_id=vpc_id, name=name, records=records)


def record(name: str, *values: str, kind: str = "A", most: int = 8) -> RecordPlan:
    return RecordPlan(name=name, type=kind, ttl_s=5, values=values, most_answers=most)


def ask(zones: Zones, name: str, kind: str = "A", asker: Asker = ASKER) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0)
    reply = asyncio.run(Resolver(zones, Silent()).answer(query.to_wire(), asker))
    assert reply is not None
    return dns.message.from_wire(reply)


def values(reply: dns.message.Message) -> list[str]:
    return [one.to_text() for rrset in reply.answer for one in rrset]


def learned(*zones: ZonePlan) -> Zones:
    known = Zones()
    known.learn(zones)
    return known


def test_whatever_comes_is_answered_or_passed_over() -> None:
    resolver = Resolver(learned(zone(record("web.local", "10.0.0.9"))), Silent())
    whole = bytearray(dns.message.make_query("web.local", "A", use_edns=0).to_wire())

    async def try_all() -> None:
        for _ in range(3000):
            message = bytearray(whole)
            for _ in range(random.randrange(1, 6)):
                message[random.randrange(len(message))] = random.randrange(256)
            await resolver.answer(bytes(message[: random.randrange(len(message) + 1)]), ASKER)
            await resolver.answer(os.urandom(random.randrange(80)), ASKER)

    asyncio.run(try_all())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("ip-10-0-0-5.ec2.internal", ["10.0.0.5"], id="in the range"),
        pytest.param("IP-10-0-0-5.EC2.Internal", ["10.0.0.5"], id="in capitals"),
        pytest.param("ip-10-1-0-5.ec2.internal", [], id="of another range"),
        pytest.param("ip-10-0-0-256.ec2.internal", [], id="no address"),
        pytest.param("web.ip-10-0-0-5.ec2.internal", [], id="below it"),
    ],
)
def test_private_name_is_one_of_the_vpc(name: str, found: list[str]) -> None:
    reply = ask(Zones(), name)

    assert values(reply) == found
    assert reply.rcode() is (dns.rcode.NOERROR if found else dns.rcode.NXDOMAIN)


def test_address_of_the_vpc_has_a_name_and_others_are_asked_for_elsewhere() -> None:
    assert values(ask(Zones(), "5.0.0.10.in-addr.arpa", "PTR")) == ["ip-10-0-0-5.ec2.internal."]
    assert ask(Zones(), "5.0.1.192.in-addr.arpa", "PTR").rcode() is dns.rcode.SERVFAIL


def test_zone_of_another_vpc_is_not_seen() -> None:
    known = learned(zone(record("web.local", "10.0.0.9"), vpc_id="vpc-2"))

    assert ask(known, "web.local").rcode() is dns.rcode.SERVFAIL


def test_narrowest_zone_counts() -> None:
    known = learned(
        zone(record("a.local", "10.0.0.1"), record("a.test.local", "10.0.0.2")),
        zone(record("b.test.local", "10.0.0.3"), name="test.local"),
    )

    assert values(ask(known, "a.local")) == ["10.0.0.1"]
    assert ask(known, "a.test.local").rcode() is dns.rcode.NXDOMAIN
    assert values(ask(known, "b.test.local")) == ["10.0.0.3"]


def test_name_between_a_zone_and_a_record_exists_without_records() -> None:
    known = learned(zone(record("a.b.local", "10.0.0.1")))

    reply = ask(known, "b.local")

    assert (reply.rcode(), values(reply)) == (dns.rcode.NOERROR, [])
    assert ask(known, "c.local").rcode() is dns.rcode.NXDOMAIN


def test_alias_within_a_zone_is_followed_and_a_loop_is_not() -> None:
    known = learned(
        zone(
            record("www.local", "web.local", kind="CNAME"),
            record("web.local", "10.0.0.9"),
            record("one.local", "other.local", kind="CNAME"),
            record("other.local", "one.local", kind="CNAME"),
        )
    )

    assert values(ask(known, "www.local")) == ["web.local.", "10.0.0.9"]
    assert ask(known, "one.local").rcode() is dns.rcode.SERVFAIL


@pytest.mark.parametrize("most", [8, 1])
def test_answer_has_some_of_many_values(most: int) -> None:
    addresses = [f"10.0.0.{number}" for number in range(1, 21)]
    known = learned(zone(record("web.local", *addresses, most=most)))

    answers = [values(ask(known, "web.local")) for _ in range(30)]

    assert {len(answer) for answer in answers} == {most}
    assert len({one for answer in answers for one in answer}) > most


def test_record_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    known = learned(
        zone(
            record("web.local", "10.0.0.9"),
            record("no.local", "nonsense"),
            record("a." + "b" * 64 + ".local", "10.0.0.9"),
            record("out.elsewhere", "10.0.0.9"),
            record("srv.local", "1 1 80", kind="SRV"),
            record("empty.local"),
            record("alias.local", kind="CNAME"),
        )
    )

    assert values(ask(known, "web.local")) == ["10.0.0.9"]
    assert ask(known, "no.local").rcode() is dns.rcode.NXDOMAIN
    assert "6 records of private zones are left out" in caplog.text


def test_names_with_odd_characters_are_names() -> None:
    known = learned(zone(record("_sip._tcp.local", "1 1 5060 a.local", kind="SRV")))

    assert values(ask(known, "_sip._tcp.local", "SRV")) == ["1 1 5060 a.local."]
    for name in ("a@b.local", r"with\032space.local", "*.local", "."):
        assert ask(known, name).rcode() in {dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL}


def test_answer_that_does_not_fit_is_cut() -> None:
    addresses = [f"10.0.{number}.1" for number in range(100)]
    known = learned(zone(record("web.local", *addresses, most=100)))
    query = dns.message.make_query("web.local", "A").to_wire()
    resolver = Resolver(known, Silent())

    by_udp = asyncio.run(resolver.answer(query, ASKER))
    by_tcp = asyncio.run(resolver.answer(query, ASKER, by_tcp=True))

    assert by_udp is not None
    assert by_tcp is not None
    assert len(by_udp) <= 512
    assert dns.message.from_wire(by_udp).flags & dns.flags.TC
    assert len(values(dns.message.from_wire(by_tcp))) == 100


def test_zone_may_have_the_longest_name_there_is() -> None:
    name = ".".join(["a" * 62] * 3 + ["b" * 60])
    known = learned(zone(record(f"w.{name}", "10.0.0.9"), name=name))

    assert values(ask(known, f"w.{name}")) == ["10.0.0.9"]
    assert ask(known, f"x.{name}").rcode() is dns.rcode.NXDOMAIN


def test_subnet_outside_of_the_ranges_has_names() -> None:
    """So it is where its interfaces hang on a network of their own."""
    subnet = {
        "vpcCidrBlocks": ["10.0.0.0/16"],
        "subnetGatewayIpv4Address": "192.168.9.1/24",
        "ipv4Addresses": [{"primary": True, "privateAddress": "192.168.9.5"}],
    }
    message = task_message(container_json("web"), elasticNetworkInterfaces=[eni_json(**subnet)])
    asker = Asker.of(plan_task(message, site(Path("/nowhere"))))

    assert values(ask(Zones(), "ip-192-168-9-7.ec2.internal", asker=asker)) == ["192.168.9.7"]
    assert values(ask(Zones(), "ip-10-0-9-7.ec2.internal", asker=asker)) == ["10.0.9.7"]


@pytest.mark.parametrize("payload", [None, 1232, 65_535])
def test_reply_without_records_has_edns_as_its_query(payload: int | None) -> None:
    addresses = [f"10.0.{number % 250}.{number // 250}" for number in range(400)]
    known = learned(zone(record("web.local", *addresses, most=400)))
    options: dict[str, Any] = {} if payload is None else {"payload": payload}

    for name in ("web.local", "nobody.example"):
        query = dns.message.make_query(name, "A", **options)
        reply = asyncio.run(Resolver(known, Silent()).answer(query.to_wire(), ASKER))
        read = dns.message.from_wire(reply or b"")

        assert (read.edns, values(read)) == (query.edns, [])
        assert read.question == query.question
        assert bool(read.flags & dns.flags.TC) == (name == "web.local")


def test_shares_are_divided_among_those_who_ask() -> None:
    shares = Shares(total=64)
    taken = [sum(shares.take("a") for _ in range(500))]
    taken += [sum(shares.take(name) for _ in range(500)) for name in ("b", "c", "d")]

    assert taken == [64, 32, 21, 16]
    assert sum(shares.take("e") for _ in range(MOST)) >= LEAST
    for _ in range(64):
        shares.give_back("a")
    assert shares.take("a")
