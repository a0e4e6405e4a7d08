"""The resolver of a VPC: what it knows it answers, the rest it asks the servers of this machine.

It remembers no answers of others: the servers do.
"""

import logging
from typing import Final

import dns.exception
import dns.flags
import dns.message
from dns.message import Message
from dns.opcode import Opcode
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from fargate_agent.vpc.messages import is_cut, is_query, render_format_error
from fargate_agent.vpc.upstream import Upstream, UpstreamError
from fargate_agent.vpc.zones import Asker, LocalAnswer, Zones

log = logging.getLogger(__name__)

PLAIN_BYTES: Final = 512
"""Of a datagram to a client that says nothing else. Source: RFC 1035, 4.2.1."""
MAX_DATAGRAM_BYTES: Final = 1232
"""What passes every path whole. Source: DNS flag day 2020."""
MAX_ASKED_BYTES: Final = 4096
"""Of a datagram, however much more the client says that it takes."""
MAX_TCP_BYTES: Final = 65_535

_TRANSFERS: Final = frozenset({RdataType.AXFR, RdataType.IXFR})


class Resolver:
    """Answers queries of tasks."""

    def __init__(self, zones: Zones, upstream: Upstream) -> None:
        self._zones = zones
        self._upstream = upstream

    async def answer(self, wire: bytes, asker: Asker, *, by_tcp: bool = False) -> bytes | None:
        """Return the reply to a message; None if it deserves none. Raises nothing."""
        if not is_query(wire):
            return None
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return render_format_error(wire)
        try:
            return await self._answer(wire, query, asker, by_tcp=by_tcp)
        except (UpstreamError, dns.exception.DNSException, ValueError) as error:
            log.debug("no answer: %s", error)
            return _render_bare(query, Rcode.SERVFAIL)

    async def _answer(self, wire: bytes, query: Message, asker: Asker, *, by_tcp: bool) -> bytes:
        """Return the reply to a query, which is `wire` as it came.

        Raises:
            UpstreamError: nobody answers it.
            DNSException, ValueError: the answer makes no sense.
        """
        refusal = _refuse(query)
        if refusal is not None:
            return _render_bare(query, refusal)
        question = query.question[0]
        local = self._zones.find(asker, question.name, question.rdtype)
        if local is None:
            reply = await self._upstream.ask(wire, by_tcp=by_tcp)
        else:
            reply = await self._render_local(query, local)
        limit = MAX_TCP_BYTES if by_tcp else find_limit(query)
        return reply if len(reply) <= limit else _render_bare(query, cut=True)

    async def _render_local(self, query: Message, local: LocalAnswer) -> bytes:
        """Return a reply of what is known here, and of what an alias leads to elsewhere.

        Raises:
            UpstreamError: that isn't answered.
            DNSException, ValueError: the answer makes no sense.
        """
        reply = _make_reply(query, local.rcode)
        reply.answer += local.answer
        reply.authority += local.authority
        if local.goes_on is not None:
            kind = query.question[0].rdtype
            further = dns.message.make_query(local.goes_on, kind).to_wire()
            answer = await self._upstream.ask(further)
            if is_cut(answer):
                answer = await self._upstream.ask(further, by_tcp=True)
            read = dns.message.from_wire(answer)
            reply.set_rcode(read.rcode())
            reply.answer += read.answer
            reply.authority += read.authority
        try:
            return reply.to_wire(max_size=MAX_TCP_BYTES)
        except dns.exception.TooBig:
            return _render_bare(query, cut=True)


def find_limit(query: Message) -> int:
    """Return the size of the largest datagram that the client takes, in bytes."""
    if query.edns < 0:
        return PLAIN_BYTES
    return min(max(query.payload, PLAIN_BYTES), MAX_ASKED_BYTES)


def _refuse(query: Message) -> Rcode | None:
    """Return why a query isn't answered; None if it is."""
    if query.edns > 0:
        return Rcode.BADVERS
    if query.opcode() != Opcode.QUERY:
        return Rcode.NOTIMP
    if len(query.question) != 1:
        return Rcode.FORMERR
    question = query.question[0]
    if question.rdclass != RdataClass.IN or question.rdtype in _TRANSFERS:
        return Rcode.REFUSED
    return None


def _make_reply(query: Message, rcode: Rcode) -> Message:
    """Begin a reply. To EDNS it has EDNS, of the version that is spoken here.

    Source: RFC 6891, 6.1.1 and 6.1.3.
    """
    reply = dns.message.make_response(
        query, recursion_available=True, our_payload=MAX_DATAGRAM_BYTES
    )
    if query.edns > 0:
        reply.use_edns(0, payload=MAX_DATAGRAM_BYTES)
    reply.set_rcode(rcode)
    return reply


def _render_bare(query: Message, rcode: Rcode = Rcode.NOERROR, *, cut: bool = False) -> bytes:
    """Return a reply without records; `cut` tells the client to ask again by TCP."""
    reply = _make_reply(query, rcode)
    if cut:
        reply.flags |= dns.flags.TC
    return reply.to_wire()
