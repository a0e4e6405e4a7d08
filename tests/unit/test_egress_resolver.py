"""The resolver, against a DNS server on the loopback."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.rcode
import pytest

from fargate_agent.egress.resolver import LookupFailedError, Nameservers, TaskResolver
from tests.fixtures.nameserver import NameServer, bind_to_one_port

BOTH = (socket.AF_INET, socket.AF_INET6)


@dataclass(kw_only=True)
class Lookups:
    server: NameServer
    port: int

    async def resolve(
        self,
        name: str,
        *,
        servers: tuple[str, ...] = ("127.0.0.1",),
        families: tuple[socket.AddressFamily, ...] = (socket.AF_INET,),
        timeout_s: float = 5,
    ) -> list[str]:
        nameservers = Nameservers(
            servers=servers,
            search=("one.test", "two.test"),
            families=families,
            port=self.port,
            timeout_s=timeout_s,
        )
        resolver = TaskResolver(socket.socket, nameservers)
        return [result["host"] for result in await resolver.resolve(name, 443)]


@pytest.fixture
async def lookups() -> AsyncIterator[Lookups]:
    server = NameServer()
    udp, tcp = bind_to_one_port()
    async with server.serve(udp, tcp):
        yield Lookups(server=server, port=udp.getsockname()[1])


async def test_name_is_resolved_to_all_its_addresses(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1", "10.0.0.2"]

    assert sorted(await lookups.resolve("registry.test")) == ["10.0.0.1", "10.0.0.2"]


async def test_ipv6_addresses_come_after_ipv4_when_the_task_has_ipv6(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "AAAA"] = ["fd00::1"]
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]

    assert await lookups.resolve("registry.test", families=BOTH) == ["10.0.0.1", "fd00::1"]


async def test_family_without_answer_does_not_spoil_the_other(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]
    lookups.server.silent.add("AAAA")

    found = await lookups.resolve("registry.test", families=BOTH, timeout_s=0.2)

    assert found == ["10.0.0.1"]


async def test_truncated_answer_is_asked_for_over_tcp(lookups: Lookups) -> None:
    addresses = [f"10.0.0.{n}" for n in range(1, 200)]
    lookups.server.records["registry.test", "A"] = addresses
    lookups.server.truncates = True

    assert set(await lookups.resolve("registry.test")) == set(addresses)
    assert lookups.server.queries == ["udp registry.test A", "tcp registry.test A"]


async def test_alias_is_followed_also_when_only_the_alias_is_answered(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "CNAME"] = ["cdn.test."]
    lookups.server.records["cdn.test", "A"] = ["10.0.0.3"]

    assert await lookups.resolve("registry.test") == ["10.0.0.3"]


async def test_aliases_in_a_circle_come_to_an_end(lookups: Lookups) -> None:
    lookups.server.records["a.test", "CNAME"] = ["b.test."]
    lookups.server.records["b.test", "CNAME"] = ["a.test."]

    with pytest.raises(LookupFailedError, match=r"^lookup a\.test: too many aliases$"):
        await lookups.resolve("a.test")


async def test_answer_to_another_question_is_passed_over(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]
    lookups.server.forges = True

    assert await lookups.resolve("registry.test") == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param("short", ["short.one.test", "short.two.test"], id="short-name"),
        pytest.param("a.dot", ["a.dot", "a.dot.one.test", "a.dot.two.test"], id="with-a-dot"),
    ],
)
async def test_search_list_is_tried_in_the_order_of_libc(
    lookups: Lookups, name: str, asked: list[str]
) -> None:
    lookups.server.records[f"{name}.two.test", "A"] = ["10.0.0.1"]

    assert await lookups.resolve(name) == ["10.0.0.1"]
    assert lookups.server.queries == [f"udp {each} A" for each in asked]


async def test_search_goes_on_behind_a_name_without_addresses(lookups: Lookups) -> None:
    lookups.server.records["short.one.test", "MX"] = ["10 mail.test."]
    lookups.server.records["short.two.test", "A"] = ["10.0.0.1"]

    assert await lookups.resolve("short", families=BOTH) == ["10.0.0.1"]


async def test_answer_to_another_question_over_tcp_is_no_answer(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]
    lookups.server.truncates = lookups.server.forges = True

    with pytest.raises(LookupFailedError, match=r"^lookup registry\.test: server misbehaving$"):
        await lookups.resolve("registry.test")


async def test_server_that_is_no_address_is_passed_over(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]

    assert await lookups.resolve("registry.test", servers=("https://dns.test", "127.0.0.1"))


async def test_host_name_that_is_no_dns_name_is_told(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 64)  # as long as Linux allows

    with pytest.raises(
        LookupFailedError, match=r"^lookup registry\.test: this machine's host name"
    ):
        await lookups.resolve("registry.test")


async def test_failure_says_what_the_kernel_said(lookups: Lookups) -> None:
    with pytest.raises(LookupFailedError, match=r"^lookup registry\.test: connection refused$"):
        await lookups.resolve("registry.test", servers=("127.0.0.2", "127.0.0.3"))


async def test_next_server_is_asked_when_the_first_says_nothing(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]

    # Nothing listens on the first one's port, so the kernel says so at once.
    assert await lookups.resolve("registry.test", servers=("127.0.0.2", "127.0.0.1"))


async def test_server_that_fails_once_is_asked_again(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "A"] = ["10.0.0.1"]
    lookups.server.fails_once = True

    assert await lookups.resolve("registry.test") == ["10.0.0.1"]
    assert len(lookups.server.queries) == 2


@pytest.mark.parametrize(
    ("rcode", "text"),
    [
        pytest.param(dns.rcode.NXDOMAIN, "no such host", id="nxdomain"),
        pytest.param(dns.rcode.SERVFAIL, "server misbehaving", id="servfail"),
        pytest.param(dns.rcode.REFUSED, "server misbehaving", id="refused"),
    ],
)
async def test_failure_says_what_the_server_answered(
    lookups: Lookups, rcode: dns.rcode.Rcode, text: str
) -> None:
    lookups.server.rcode = rcode

    with pytest.raises(LookupFailedError, match=rf"^lookup registry\.test: {text}$"):
        await lookups.resolve("registry.test")


async def test_name_without_addresses_is_no_such_host(lookups: Lookups) -> None:
    lookups.server.records["registry.test", "TXT"] = ["hello"]

    with pytest.raises(LookupFailedError, match="no such host"):
        await lookups.resolve("registry.test")


async def test_failure_says_timeout_when_no_server_answers(lookups: Lookups) -> None:
    lookups.server.silent.add("A")

    with pytest.raises(LookupFailedError, match=r"^lookup registry\.test: i/o timeout$"):
        await lookups.resolve("registry.test", timeout_s=0.2)
    assert len(lookups.server.queries) == 2


@pytest.mark.parametrize(
    ("servers", "name", "text"),
    [
        pytest.param((), "registry.test", "no nameserver", id="no-servers"),
        pytest.param(("nonsense",), "registry.test", "nonsense", id="bad-server"),
        pytest.param(("127.0.0.1",), "a..b", "empty", id="bad-name"),
        pytest.param(("127.0.0.1",), "a" * 64 + ".test", "label", id="long-name"),
    ],
)
async def test_failure_names_what_is_wrong(
    lookups: Lookups, servers: tuple[str, ...], name: str, text: str
) -> None:
    with pytest.raises(LookupFailedError, match=text):
        await lookups.resolve(name, servers=servers)
