"""Keys, what they have signed, and settings that ask for it."""

import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from fargate_agent.image.admission import Admission, Policy, Requirement
from fargate_agent.image.mirrors import find_prefix
from fargate_agent.image.reference import parse_reference
from fargate_agent.image.signatures import (
    InvalidKeyError,
    Signature,
    UnsignedError,
    find_signer,
    read_keys,
)
from fargate_agent.setting_faults import find_faults
from fargate_agent.settings import read_agent_settings
from fargate_agent.settings_file import SettingsError
from tests.fixtures.signatures import PrivateKey, make_key, make_payload, sign, write_public

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def signature(key: PrivateKey, payload: bytes) -> Signature:
    return Signature(payload=payload, signature=sign(key, payload))


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(make_key(), id="P-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="RSA"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="Ed25519"),
    ],
)
def test_what_a_key_has_signed_is_verified(tmp_path: Path, key: PrivateKey) -> None:
    keys = read_keys(write_public(tmp_path / "cosign.pub", make_key(), key))
    payload = make_payload(DIGEST)
    good = signature(key, payload)
    damaged = Signature(payload=payload, signature=bytes(len(good.signature)))

    assert find_signer([damaged, good], keys, DIGEST) == keys[1]
    for changed in (
        damaged,
        Signature(payload=payload + b" ", signature=good.signature),
        Signature(payload=payload, signature=good.signature[:-1]),
        signature(make_key(), payload),
    ):
        with pytest.raises(UnsignedError, match="none of its 1 signatures was made by the key"):
            find_signer([changed], keys, DIGEST)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        pytest.param(make_payload(OTHER), f"is another one: {OTHER}", id="another-image"),
        pytest.param(make_payload(DIGEST, type="atomic container signature"), "type", id="type"),
        pytest.param(
            make_payload(DIGEST, image={}), "'docker-manifest-digest' is missing", id="no"
        ),
        pytest.param(b"hello", "is not JSON", id="no-json"),
        pytest.param(b"[]", "is not a JSON object", id="list"),
    ],
)
def test_what_was_signed_is_another_thing(tmp_path: Path, payload: bytes, text: str) -> None:
    key = make_key()
    keys = read_keys(write_public(tmp_path / "cosign.pub", key))

    with pytest.raises(UnsignedError, match=text):
        find_signer([signature(key, payload)], keys, DIGEST)


def pem(data: bytes, label: str) -> bytes:
    return data.replace(b"PUBLIC KEY", label.encode())


def private_pem() -> bytes:
    return make_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: dsa.DSAPrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", "it has no public key in PEM", id="empty"),
        pytest.param(private_pem(), "it has a private key: only the public", id="private"),
        pytest.param(
            pem(public_pem(make_key()), "ENCRYPTED COSIGN PRIVATE KEY"),
            "it has a private key",
            id="cosign-key",
        ),
        pytest.param(pem(public_pem(make_key()), "CERTIFICATE"), "'CERTIFICATE' where", id="cert"),
        pytest.param(
            b"-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n",
            "its public key can't be read",
            id="damaged",
        ),
        pytest.param(
            public_pem(dsa.generate_private_key(1024)), "neither ECDSA, RSA nor Ed25519", id="DSA"
        ),
        pytest.param(
            public_pem(rsa.generate_private_key(65537, 1024)), "less than 2048 bits", id="RSA-1024"
        ),
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, data: bytes, text: str) -> None:
    file = tmp_path / "cosign.pub"
    file.write_bytes(data)

    with pytest.raises(InvalidKeyError, match=text):
        read_keys(file)


def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidKeyError, match="^No such file or directory$"):
        read_keys(tmp_path / "gone.pub")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        pytest.param("nginx", "docker.io", id="docker-hub"),
        pytest.param("registry.lan/team/web:1", "registry.lan/team", id="longest"),
        pytest.param("registry.lan/teams/web:1", "registry.lan", id="boundary"),
        pytest.param("REGISTRY.lan/web:1", "registry.lan", id="small-letters"),
        pytest.param("other.lan/web", "", id="all"),
        pytest.param("registry.lan.evil.test/web", "", id="longer-host"),
        pytest.param("registry.lan:443/web", "registry.lan", id="port-of-TLS"),
        pytest.param("registry.lan:0443/team/web", "registry.lan/team", id="port-with-a-zero"),
        pytest.param("registry.lan:80/web", "registry.lan", id="port-without-TLS"),
        pytest.param("registry.lan:5000/web", "", id="another-port"),
        pytest.param("registry-1.docker.io/library/nginx", "docker.io", id="host-of-docker-hub"),
        pytest.param("docker.io:443/library/nginx", "docker.io", id="docker-hub-with-port"),
        pytest.param("INDEX.docker.io/library/nginx", "docker.io", id="index-of-docker-hub"),
        pytest.param("[2001:db8::1]/web", "[2001:db8:0::1]:443", id="address"),
    ],
)
def test_the_longest_prefix_counts(name: str, prefix: str) -> None:
    prefixes = ("", "docker.io", "registry.lan", "registry.lan/team", "[2001:db8:0::1]:443")
    admission = Admission(Policy(prefix=one, require=Requirement.DIGEST) for one in prefixes)

    with pytest.raises(Exception, match=re.escape(f'image_signatures."{prefix}" asks for')):
        admission.open(parse_reference(name)).check_name()


def test_a_prefix_written_as_in_the_image_comes_before_the_same_in_other_words() -> None:
    prefixes = ("registry.lan:443", "registry.lan")
    found = [find_prefix(parse_reference(f"{one}/web"), prefixes) for one in prefixes]

    assert found == list(prefixes)


def test_an_image_of_no_prefix_needs_nothing() -> None:
    admission = Admission([Policy(prefix="registry.lan", require=Requirement.DIGEST)])

    admission.open(parse_reference("nginx")).check_name()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("FARGATE_AGENT_"):
            monkeypatch.delenv(name)
    return tmp_path / "agent.toml"


def test_policies_are_a_table(file: Path) -> None:
    file.write_text(
        '[image_signatures.""]\nrequire = "digest"\n'
        '[image_signatures."registry.lan/"]\nrequire = "key"\nkey = "/k.pub"\nloaded = true\n'
    )

    policies = read_agent_settings(file).complete().image_signatures

    assert policies.keys() == {"", "registry.lan"}
    assert policies[""].require == "digest"
    assert (policies["registry.lan"].key, policies["registry.lan"].loaded) == (Path("/k.pub"), True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('"r.lan" = { require = "key" }', 'require = "key" needs key', id="no-key"),
        pytest.param(
            '"r.lan" = { require = "digest", key = "/k" }', 'key is for require = "key"', id="key"
        ),
        pytest.param('"r.lan" = { require = "sign" }', "'none', 'digest' or 'key'", id="require"),
        pytest.param('"nginx" = { require = "none" }', "must be HOST", id="prefix"),
        pytest.param('"r.lan" = { require = "none", x = 1 }', "unknown setting", id="member"),
    ],
)
def test_a_policy_that_is_wrong_is_refused(file: Path, text: str, said: str) -> None:
    file.write_text(f"image_signatures = {{ {text} }}\n")

    with pytest.raises(SettingsError, match=said):
        read_agent_settings(file).complete()


def test_a_check_of_the_settings_finds_a_key_that_can_not_be_used(file: Path) -> None:
    key = file.with_name("cosign.pub")
    file.write_text(f'image_signatures = {{ "r.lan" = {{ require = "key", key = "{key}" }} }}\n')
    settings = read_agent_settings(file).complete()

    assert ("image_signatures", f'"r.lan": {key}: No such file or directory') in list(
        find_faults(settings)
    )
    write_public(key, make_key())
    assert "image_signatures" not in dict(find_faults(settings))
