"""What is said of a registry whose certificate isn't good, and what to do about it."""

import re
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.image.registry.hosts import Hosts, OwnSettings
from tests.fixtures.certificates import (
    EXPIRED_DAYS,
    FUTURE_DAYS,
    GOOD_DAYS,
    Certificate,
    make_certificate,
)
from tests.fixtures.images import build_image
from tests.fixtures.registry import FakeRegistry, bind_loopback
from tests.fixtures.registry_client import opened, refusal

HERE: Final = "127.0.0.1"
ELSEWHERE: Final = "192.0.2.1"
FAILED: Final = "tls: failed to verify certificate: x509: "
UNKNOWN: Final = rf"{FAILED}certificate signed by unknown authority; "
NAME_A_FILE: Final = (
    UNKNOWN + r"if the authority is your own, name a file with its certificate in the agent's "
    r'setting registries\."127\.0\.0\.1:\d+"\.ca_file$'
)
OTHER_FILE: Final = (
    UNKNOWN + r"the certificates of the agent's setting "
    r'registries\."127\.0\.0\.1:\d+"\.ca_file are not those of its authority$'
)
EXPIRED: Final = (
    rf"{FAILED}certificate has expired or is not yet valid: current time "
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ; set the clock of this machine if that is wrong, or renew "
    r"the certificate of the server, or that of its authority$"
)
OTHER_NAME: Final = (
    rf"{FAILED}certificate is valid for other names, not 127\.0\.0\.1; ask the server by a name "
    r"that its certificate has, or give it a certificate for 127\.0\.0\.1$"
)


def trusting(registry: FakeRegistry, directory: Path, authority: Certificate | None) -> Hosts:
    """The settings of an agent that trusts an authority for the registry."""
    if authority is None:
        return Hosts().for_registry(registry.host)
    file = directory / "authority.pem"
    file.write_bytes(authority.pem)
    own = {registry.host: OwnSettings(ca_file=file)}
    return Hosts(own=own).for_registry(registry.host)


AUTHORITY: Final = make_certificate("authority")
OTHER: Final = make_certificate("other authority")
OLD_AUTHORITY: Final = make_certificate("old authority", days=EXPIRED_DAYS)


def signed(address: str, days: tuple[int, int], signer: Certificate | None) -> Certificate:
    return make_certificate("server", address, days=days, signer=signer)


SELF_SIGNED: Final = signed(HERE, GOOD_DAYS, None)
SELF_SIGNED_EXPIRED: Final = signed(HERE, EXPIRED_DAYS, None)
GOOD: Final = signed(HERE, GOOD_DAYS, AUTHORITY)


@pytest.mark.parametrize(
    ("server", "trusted", "text"),
    [
        pytest.param(GOOD, None, NAME_A_FILE, id="unknown authority"),
        pytest.param(GOOD, OTHER, OTHER_FILE, id="another authority"),
        pytest.param(SELF_SIGNED, None, NAME_A_FILE, id="self-signed"),
        pytest.param(SELF_SIGNED, OTHER, OTHER_FILE, id="self-signed, another authority"),
        pytest.param(
            signed(HERE, EXPIRED_DAYS, AUTHORITY), AUTHORITY, EXPIRED, id="expired, of an authority"
        ),
        pytest.param(signed(HERE, FUTURE_DAYS, AUTHORITY), AUTHORITY, EXPIRED, id="not valid yet"),
        pytest.param(
            signed(HERE, GOOD_DAYS, OLD_AUTHORITY),
            OLD_AUTHORITY,
            EXPIRED,
            id="an authority that expired",
        ),
        pytest.param(
            signed(ELSEWHERE, GOOD_DAYS, AUTHORITY), AUTHORITY, OTHER_NAME, id="another name"
        ),
        pytest.param(
            SELF_SIGNED_EXPIRED, None, NAME_A_FILE, id="self-signed and expired: first that"
        ),
        pytest.param(
            SELF_SIGNED_EXPIRED, SELF_SIGNED_EXPIRED, EXPIRED, id="and when it is trusted, this"
        ),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_said_with_what_helps(
    tmp_path: Path, server: Certificate, trusted: Certificate | None, text: str
) -> None:
    registry = FakeRegistry()
    async with registry.serve(bind_loopback(), server.server_context(tmp_path)):
        hosts = trusting(registry, tmp_path, trusted)

        error = await refusal(f"{registry.host}/web:1", hosts=hosts)

    assert re.search(text, str(error)), str(error)
    assert error.tries == 1


@pytest.mark.parametrize(
    ("server", "trusted"),
    [pytest.param(GOOD, AUTHORITY, id="signed"), pytest.param(SELF_SIGNED, SELF_SIGNED, id="self")],
)
async def test_good_certificate_is_taken(
    tmp_path: Path, server: Certificate, trusted: Certificate
) -> None:
    registry, image = FakeRegistry(), build_image()
    async with registry.serve(bind_loopback(), server.server_context(tmp_path)):
        name = registry.add("web", "1", image)
        hosts = trusting(registry, tmp_path, trusted)

        async with opened(name, hosts=hosts) as opened_registry:
            assert (await opened_registry.resolve()).target.digest == image.digest
