"""What tasks are told of names and the time, asked from inside their network namespaces."""

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import pytest

from fargate_agent.kernel_clock import Clock
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.parallel import together
from fargate_agent.plan import TIME_ADDRESS, VPC_RESOLVER, TaskPlan, plan_task
from fargate_agent.plan.names import RecordPlan, ZonePlan
from fargate_agent.vpc.memory import read_zones
from fargate_agent.vpc.pace import PER_S, SLICES_PER_S
from fargate_agent.vpc.services import HostVpcServices
from fargate_agent.vpc.shares import LEAST
from tests.fixtures.nameserver import NameServer, bind_to_one_port
from tests.fixtures.network import MakeNetns, read_ip
from tests.messages import container_json, eni_json, site, task_message

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

DEADLINE_S: Final = 20
RESOLVER: Final = IPv4Address("10.213.0.2")
"""Of the range of the messages' VPC."""
BURST: Final = 2 * PER_S // SLICES_PER_S + 10
ZONE: Final = ZonePlan(
    vpc_id="vpc-1",
    name="local",
    records=(
        RecordPlan(name="web.local", type="A", ttl_s=10, values=("10.213.0.9",)),
        RecordPlan(name="out.local", type="CNAME", ttl_s=10, values=("www.example.com",)),
        RecordPlan(name="db.local", type="SRV", ttl_s=10, values=("1 1 5432 a.db.local",)),
    ),
)


class Place:
    """Tasks of one agent, and the name server of its machine."""

    def __init__(
        self,
        server: NameServer,
        services: HostVpcServices,
        make: MakeNetns,
        servers: list[str] | None = None,
    ) -> None:
        self.server, self.services, self._make = server, services, make
        self.servers = servers or []

    async def start(self, **eni: Any) -> TaskPlan:
        task_id = secrets.token_hex(16)
        arn = f"arn:aws:ecs:us-east-1:000000000000:task/default/{task_id}"
        message = task_message(
            container_json("web"),
            arn=arn,
            vpcId="vpc-1",
            elasticNetworkInterfaces=[
                eni_json(
                    vpcCidrBlocks=["10.213.0.0/16"],
                    **{"domainNameServers": [], **eni},
                )
            ],
        )
        plan = replace(plan_task(message, site(Path("/nowhere"))), netns=await self._make())
        await self.services.ensure(plan)
        return plan


@pytest.fixture
def nameserver_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    udp, tcp = bind_to_one_port()
    yield udp, tcp
    udp.close()
    tcp.close()


@pytest.fixture
async def place(
    metadata_netns: MetadataNetns,
    make_netns: MakeNetns,
    tmp_path: Path,
    nameserver_sockets: tuple[socket.socket, socket.socket],
) -> AsyncIterator[Place]:
    server = NameServer(records={("www.example.com", "A"): ["192.0.2.80"]})
    servers = ["127.0.0.1"]
    services = HostVpcServices(
        metadata_netns,
        tmp_path / "zones.json",
        lambda: tuple(servers),
        port=nameserver_sockets[0].getsockname()[1],
        read_clock=lambda: Clock(is_synchronized=True, max_error_us=1000),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.serve(*nameserver_sockets))
        await stack.enter_async_context(services)
        yield Place(server, services, make_netns, servers)


def make_query(name: str, kind: str = "A", **more: Any) -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind, **more)


def exchange(task: TaskPlan, query: bytes, server: IPv4Address = RESOLVER, port: int = 53) -> bytes:
    """Ask by a datagram; answers of other addresses than the asked one don't count."""
    with socket_in_netns(task.netns, socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(DEADLINE_S)
        asking.connect((str(server), port))
        asking.send(query)
        return asking.recv(65_535)


def exchange_by_tcp(task: TaskPlan, query: bytes) -> bytes:
    with socket_in_netns(task.netns, socket.AF_INET, socket.SOCK_STREAM) as asking:
        asking.settimeout(DEADLINE_S)
        asking.connect((str(RESOLVER), 53))
        asking.sendall(len(query).to_bytes(2) + query)
        with asking.makefile("rb") as reading:
            return reading.read(int.from_bytes(reading.read(2)))


async def ask(task: TaskPlan, name: str, kind: str = "A") -> dns.message.Message:
    reply = await asyncio.to_thread(exchange, task, make_query(name, kind).to_wire())
    return dns.message.from_wire(reply)


def values(reply: dns.message.Message) -> list[str]:
    return [one.to_text() for rrset in reply.answer for one in rrset]


@pytest.mark.parametrize("server", [RESOLVER, VPC_RESOLVER], ids=["base plus two", "link-local"])
async def test_private_name_of_an_address_says_the_address(
    place: Place, server: IPv4Address
) -> None:
    task = await place.start()
    query = make_query("ip-10-213-0-77.ec2.internal").to_wire()

    reply = dns.message.from_wire(await asyncio.to_thread(exchange, task, query, server))

    assert values(reply) == ["10.213.0.77"]
    assert reply.flags & dns.flags.RA
    assert not place.server.queries


async def test_service_is_found_by_its_name_and_nothing_else_of_its_zone(place: Place) -> None:
    task = await place.start()
    await place.services.learn([ZONE])

    found = await ask(task, "web.local")
    ports = await ask(task, "db.local", "SRV")
    missing = await ask(task, "nothing.local")
    other_type = await ask(task, "web.local", "AAAA")

    assert values(found) == ["10.213.0.9"]
    assert values(ports) == ["1 1 5432 a.db.local."]
    assert missing.rcode() is dns.rcode.NXDOMAIN
    assert (other_type.rcode(), values(other_type)) == (dns.rcode.NOERROR, [])
    assert not place.server.queries


async def test_alias_to_the_outside_is_followed(place: Place) -> None:
    task = await place.start()
    await place.services.learn([ZONE])

    assert values(await ask(task, "out.local")) == ["www.example.com.", "192.0.2.80"]


async def test_alias_whose_end_was_cut_is_asked_for_by_tcp(place: Place) -> None:
    task = await place.start()
    await place.services.learn([ZONE])
    place.server.truncates = True

    assert values(await ask(task, "out.local")) == ["www.example.com.", "192.0.2.80"]
    assert place.server.queries == ["udp www.example.com A", "tcp www.example.com A"]


async def test_other_names_are_asked_of_the_machines_own_server(place: Place) -> None:
    task = await place.start()

    assert values(await ask(task, "www.example.com")) == ["192.0.2.80"]
    assert place.server.queries == ["udp www.example.com A"]


async def test_answer_that_was_cut_comes_whole_by_tcp(place: Place) -> None:
    task = await place.start()
    place.server.truncates = True
    query = make_query("www.example.com").to_wire()

    cut = dns.message.from_wire(await asyncio.to_thread(exchange, task, query))
    whole = dns.message.from_wire(await asyncio.to_thread(exchange_by_tcp, task, query))

    assert (bool(cut.flags & dns.flags.TC), values(cut)) == (True, [])
    assert values(whole) == ["192.0.2.80"]


async def test_forged_answer_of_a_server_is_passed_over(place: Place) -> None:
    task = await place.start()
    place.server.forges = True

    assert values(await ask(task, "www.example.com")) == ["192.0.2.80"]


async def test_server_that_fails_once_is_asked_again(place: Place) -> None:
    task = await place.start()
    place.server.fails_once = True

    assert values(await ask(task, "www.example.com")) == ["192.0.2.80"]
    assert place.server.queries == ["udp www.example.com A"] * 2


async def test_refusal_of_every_server_is_told(place: Place) -> None:
    task = await place.start()
    place.server.rcode = dns.rcode.REFUSED

    assert (await ask(task, "www.example.com")).rcode() is dns.rcode.REFUSED


async def test_next_server_is_asked_where_one_is_not_there(place: Place) -> None:
    place.servers.insert(0, "127.0.0.2")  # where nobody listens
    task = await place.start()

    assert values(await ask(task, "www.example.com")) == ["192.0.2.80"]


async def test_burst_is_answered_bit_by_bit(place: Place) -> None:
    """More than one slice of time has, and less than a socket holds."""
    task = await place.start()

    def exchange_all() -> set[int]:
        with socket_in_netns(task.netns, socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(DEADLINE_S)
            asking.connect((str(RESOLVER), 53))
            for number in range(BURST):
                asking.send(make_query("ip-10-213-0-77.ec2.internal", id=number).to_wire())
            return {int.from_bytes(asking.recv(4096)[:2]) for _ in range(BURST)}

    assert await asyncio.to_thread(exchange_all) == set(range(BURST))


async def test_one_connection_may_ask_much(place: Place) -> None:
    task = await place.start()

    def exchange_all() -> list[int]:
        with socket_in_netns(task.netns, socket.AF_INET, socket.SOCK_STREAM) as asking:
            asking.settimeout(DEADLINE_S)
            asking.connect((str(RESOLVER), 53))
            for number in range(BURST):
                query = make_query("ip-10-213-0-77.ec2.internal", id=number).to_wire()
                asking.sendall(len(query).to_bytes(2) + query)
            with asking.makefile("rb") as reading:
                replies = [reading.read(int.from_bytes(reading.read(2))) for _ in range(BURST)]
        return [int.from_bytes(reply[:2]) for reply in replies]

    assert await asyncio.to_thread(exchange_all) == list(range(BURST))


async def test_zones_that_came_last_are_those_that_are_kept(place: Place, tmp_path: Path) -> None:
    many = tuple(
        RecordPlan(name=f"i{number}.local", type="A", ttl_s=10, values=("10.213.0.9",))
        for number in range(500)
    )

    await together(
        (place.services.learn([replace(ZONE, records=many)]), place.services.learn([ZONE]))
    )

    assert read_zones(tmp_path / "zones.json") == (ZONE,)
    assert (await ask(await place.start(), "i1.local")).rcode() is dns.rcode.NXDOMAIN


async def test_task_that_asks_without_end_leaves_room_for_others(place: Place) -> None:
    """The machine's server is silent for the one, so that its queries wait."""
    hostile, other = await place.start(), await place.start()
    place.server.silent = {"TXT"}
    with socket_in_netns(hostile.netns, socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for number in range(2000):
            query = make_query(f"n{number}.example.com", "TXT").to_wire()
            asking.sendto(query, (str(RESOLVER), 53))

        assert values(await ask(other, "www.example.com")) == ["192.0.2.80"]


def test_least_share_is_enough_for_a_lookup_of_both_families() -> None:
    assert LEAST >= 2 * 3  # families, and a search list of three


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x12\x34\x01\x00\x00\x01" + bytes(6), id="question missing"),
        pytest.param(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\xc0\x0c\0\1\0\1", id="loop"),
        pytest.param(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x3fshort", id="cut in a label"),
    ],
)
async def test_message_that_makes_no_sense_is_a_format_error(place: Place, message: bytes) -> None:
    task = await place.start()

    reply = await asyncio.to_thread(exchange, task, message)

    assert reply[:2] == b"\x12\x34"
    assert reply[3] & 15 == dns.rcode.FORMERR


async def test_each_kind_of_refusal_is_told(place: Place) -> None:
    task = await place.start()
    chaos = make_query("version.bind", "TXT")
    chaos.question[0].rdclass = dns.rdataclass.RdataClass.CH
    newer = make_query("web.local", use_edns=1)
    update = make_query("web.local")
    update.set_opcode(dns.opcode.Opcode.STATUS)
    found = []
    for query in (chaos, make_query("local", "AXFR"), update, newer):
        reply = await asyncio.to_thread(exchange, task, query.to_wire())
        found.append(dns.message.from_wire(reply).rcode())

    assert found == [
        dns.rcode.REFUSED,
        dns.rcode.REFUSED,
        dns.rcode.NOTIMP,
        dns.rcode.BADVERS,
    ]


async def test_zones_are_known_to_the_next_agent(
    place: Place, metadata_netns: MetadataNetns, tmp_path: Path
) -> None:
    task = await place.start()
    await place.services.learn([ZONE])
    await place.services.__aexit__()

    async with HostVpcServices(metadata_netns, tmp_path / "zones.json", tuple) as successor:
        await successor.ensure(task)

        assert values(await ask(task, "web.local")) == ["10.213.0.9"]


async def test_machine_without_a_server_still_knows_the_names_of_the_vpc(
    metadata_netns: MetadataNetns, make_netns: MakeNetns, tmp_path: Path
) -> None:
    async with HostVpcServices(metadata_netns, tmp_path / "zones.json", tuple) as services:
        task = await Place(NameServer(), services, make_netns).start()

        assert values(await ask(task, "ip-10-213-0-5.ec2.internal")) == ["10.213.0.5"]
        assert (await ask(task, "www.example.com")).rcode() is dns.rcode.SERVFAIL


async def test_address_of_a_vpc_goes_with_its_last_task(
    place: Place, metadata_netns: MetadataNetns
) -> None:
    def addresses() -> set[str]:
        (link,) = read_ip("address", "show", "dev", "lo", netns=metadata_netns.path)
        return {one["local"] for one in link["addr_info"]}

    fixed = {"127.0.0.1", "169.254.170.2", str(VPC_RESOLVER), str(TIME_ADDRESS)}
    one, other = await place.start(), await place.start()
    assert addresses() - fixed == {str(RESOLVER)}

    await place.services.release(one)
    assert addresses() - fixed == {str(RESOLVER)}
    await place.services.release(other)
    assert addresses() - fixed == set()


async def test_server_of_the_subnet_at_that_address_is_left_alone(place: Place) -> None:
    task = await place.start(domainNameServers=[str(RESOLVER)])

    routes = {one["dst"] for one in read_ip("route", "show", "dev", "eth0", netns=task.netns)}

    assert str(RESOLVER) not in routes
    assert task.dns.servers == (str(RESOLVER),)


async def test_time_is_that_of_the_machine(place: Place) -> None:
    task = await place.start()
    asked_at = secrets.token_bytes(8)
    request = bytes([4 << 3 | 3]) + bytes(39) + asked_at
    before_s = time.time()

    reply = await asyncio.to_thread(exchange, task, request, TIME_ADDRESS, 123)

    head, stratum = reply[:2]
    origin, received, sent = struct.unpack("!8sQQ", reply[24:48])
    seconds = [moment / 2**32 - 2_208_988_800 for moment in (received, sent)]
    assert (head, stratum, origin) == (4 << 3 | 4, 3, asked_at)
    assert before_s - 1e-3 <= seconds[0] <= seconds[1] <= time.time() + 1e-3
