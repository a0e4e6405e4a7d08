import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.image.document import (
    MAX_DOCUMENT_BYTES,
    MAX_ERROR_CHARS,
    MAX_LIST_LENGTH,
    InvalidDocumentError,
)
from fargate_agent.image.manifest import (
    Index,
    Manifest,
    PlatformError,
    parse_config,
    parse_manifest,
)
from tests.fixtures.images import DOCKER, OCI, build_image, build_index

BLOB = {"mediaType": OCI["gzip"], "digest": "sha256:" + "a" * 64, "size": 3}
CONFIG = {**BLOB, "mediaType": OCI["config"]}

FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
)
HELM = "application/vnd.cncf.helm.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


def manifest_json(**changes: Any) -> bytes:
    whole = {"schemaVersion": 2, "config": CONFIG, "layers": [BLOB], **changes}
    return json.dumps(whole).encode()


def index_of(*platforms: dict[str, str] | None) -> Index:
    entries = [
        {
            "mediaType": OCI["manifest"],
            "digest": f"sha256:{n:064x}",
            "size": 1,
            **({"platform": platform} if platform is not None else {}),
        }
        for n, platform in enumerate(platforms)
    ]
    parsed = parse_manifest(OCI["index"], json.dumps({"manifests": entries}).encode())
    assert isinstance(parsed, Index)
    return parsed


def platform(architecture: str, variant: str = "", os: str = "linux") -> dict[str, str]:
    return {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}


@pytest.mark.parametrize("types", [pytest.param(OCI, id="oci"), pytest.param(DOCKER, id="docker")])
def test_manifest_lists_config_and_layers(types: dict[str, str]) -> None:
    image = build_image([b"1", b"2"], types=types)

    manifest = parse_manifest(image.media_type, image.document)

    assert isinstance(manifest, Manifest)
    assert manifest.config.media_type == types["config"]
    assert tuple(layer.digest for layer in manifest.layers) == image.layers


def test_labels_of_a_manifest_name_all_that_it_needs() -> None:
    image = build_image([b"1", b"2"])
    manifest = parse_manifest(image.media_type, image.document)
    assert isinstance(manifest, Manifest)

    assert manifest.labels == {
        "containerd.io/gc.ref.content.config": manifest.config.digest,
        "containerd.io/gc.ref.content.l.0": image.layers[0],
        "containerd.io/gc.ref.content.l.1": image.layers[1],
    }


def test_labels_of_an_index_name_its_manifests() -> None:
    images = [build_image(), build_image()]
    index = build_index(images)

    assert parse_manifest(index.media_type, index.document).labels == {
        "containerd.io/gc.ref.content.m.0": images[0].digest,
        "containerd.io/gc.ref.content.m.1": images[1].digest,
    }


@pytest.mark.parametrize(
    ("platforms", "architecture", "found"),
    [
        pytest.param([], "amd64", [], id="empty"),
        pytest.param([platform("arm64"), platform("amd64")], "amd64", [1], id="architecture"),
        pytest.param([platform("amd64", os="windows"), platform("amd64")], "amd64", [1], id="os"),
        pytest.param([platform("amd64", "v3"), platform("amd64")], "amd64", [1], id="too-new"),
        pytest.param([platform("amd64", "v2")], "amd64", [0], id="runnable"),
        pytest.param(
            [platform("amd64", "v2"), platform("amd64", "v1"), platform("amd64")],
            "amd64",
            [2, 1, 0],
            id="the-plain-one-first",
        ),
        pytest.param([platform("X86_64", os="Linux")], "amd64", [0], id="other-names"),
        pytest.param([platform("arm64", "v8")], "arm64", [0], id="arm64-v8"),
        pytest.param([platform("unknown", os="unknown"), None], "amd64", [1], id="not-said"),
        pytest.param([None, platform("amd64")], "amd64", [1, 0], id="said-before-not-said"),
        pytest.param([{}], "amd64", [0], id="empty-platform"),
    ],
)
def test_index_finds_what_runs_here_the_best_first(
    platforms: list[dict[str, str] | None], architecture: str, found: list[int]
) -> None:
    variants = {"amd64": ("", "v1", "v2"), "arm64": ("", "v8")}[architecture]

    descriptors = index_of(*platforms).find(architecture, variants)

    assert [one.digest for one in descriptors] == [f"sha256:{n:064x}" for n in found]


def test_index_names_the_platforms_of_its_images() -> None:
    index = index_of(platform("arm64", "v8"), platform("unknown", os="unknown"), None)

    assert str(PlatformError("amd64", index.platforms)) == (
        "image Manifest does not contain descriptor matching platform 'linux/amd64'; "
        "it has linux/arm64/v8"
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", "image manifest is not JSON", id="empty"),
        pytest.param(b"\xff\xfe", "image manifest is not JSON", id="no-text"),
        pytest.param(b"[" * 100_000, "image manifest is not JSON", id="deep"),
        pytest.param(b"[]", "image manifest is not a JSON object", id="list"),
        pytest.param(b" " * (MAX_DOCUMENT_BYTES + 1), "is larger than", id="large"),
        pytest.param(manifest_json(manifests=[]), "'manifests' does not belong", id="both"),
        pytest.param(manifest_json(mediaType="x/y"), "'x/y' is no image manifest", id="type"),
        pytest.param(
            manifest_json(layers=[{}] * (MAX_LIST_LENGTH + 1)),
            "'layers' has 1025 members; it may have 1024",
            id="long-list",
        ),
        pytest.param(manifest_json(mediaType=7), "'mediaType' is not text", id="type-number"),
        pytest.param(manifest_json(config=None), "config: 'digest' is missing", id="no-config"),
        pytest.param(manifest_json(config=BLOB), "is not the configuration of a", id="artifact"),
        pytest.param(manifest_json(layers={}), "'layers' is not a list", id="layers-object"),
        pytest.param(manifest_json(layers=[]), "has 0 layers", id="no-layers"),
        pytest.param(
            manifest_json(layers=[BLOB] * 128),
            "has 128 layers; it may have 1 to 127",
            id="many-layers",
        ),
        pytest.param(manifest_json(layers=["x"]), r"'layers\[0\]' is not an object", id="layer"),
        pytest.param(
            manifest_json(layers=[{**BLOB, "digest": "sha256:../x"}]),
            r"layers\[0\]: 'digest' is not a SHA-256 digest",
            id="digest",
        ),
        pytest.param(
            manifest_json(layers=[{**BLOB, "size": -1}]), "'size' is not a size", id="size"
        ),
        pytest.param(
            manifest_json(layers=[{**BLOB, "size": True}]), "'size' is not a size", id="size-bool"
        ),
        pytest.param(
            manifest_json(layers=[{**BLOB, "mediaType": "text/html"}]),
            "layers of type 'text/html' can't be unpacked",
            id="layer-type",
        ),
        *(
            pytest.param(
                manifest_json(layers=[{**BLOB, "mediaType": media_type}]),
                f"has a foreign layer \\('{re.escape(media_type)}'\\).*not in the registry: re",
                id=media_type,
            )
            for media_type in FOREIGN
        ),
        pytest.param(
            manifest_json(schemaVersion=1, config=None, fsLayers=[]),
            "Docker's schema 1, which is not supported: rebuild the image, or copy it with 'skopeo",
            id="schema-1",
        ),
        pytest.param(
            manifest_json(config={**CONFIG, "mediaType": HELM}),
            "this is a Helm chart .*, not a container image",
            id="helm",
        ),
        pytest.param(
            manifest_json(config={**CONFIG, "mediaType": EMPTY}, artifactType="text/spdx+json"),
            "this is an OCI artifact of type 'text/spdx.json', not a container image",
            id="artifact-type",
        ),
        pytest.param(
            manifest_json(config={**CONFIG, "mediaType": EMPTY}),
            "this is an OCI artifact of type 'application/vnd.oci.empty",
            id="empty-config",
        ),
    ],
)
def test_manifest_that_is_wrong_says_what(data: bytes, text: str) -> None:
    with pytest.raises(InvalidDocumentError, match=text):
        parse_manifest(OCI["manifest"], data)


MANY: Any = [{}] * (MAX_LIST_LENGTH + 1)


def test_long_index_is_refused_before_its_members_are_looked_at() -> None:
    with pytest.raises(InvalidDocumentError, match="'manifests' has 1025 members"):
        parse_manifest(OCI["index"], json.dumps({"manifests": MANY}).encode())


@pytest.mark.parametrize(
    ("document", "key"), [({"history": MANY}, "history"), ({"config": {"Env": MANY}}, "Env")]
)
def test_long_list_of_a_config_is_refused(document: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidDocumentError, match=f"'{key}' has 1025 members"):
        parse_config(json.dumps(document).encode(), "amd64", 1)


LONG = "x\n\x1b[31m" + "y" * 100_000


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda: parse_manifest(LONG, b"{}"), id="type"),
        pytest.param(
            lambda: parse_manifest(
                OCI["manifest"], manifest_json(config={**CONFIG, "mediaType": LONG})
            ),
            id="configuration",
        ),
        pytest.param(
            lambda: parse_manifest(
                OCI["manifest"], manifest_json(layers=[{**BLOB, "mediaType": FOREIGN[0] + LONG}])
            ),
            id="foreign layer",
        ),
        pytest.param(
            lambda: parse_config(
                json.dumps({"config": {"Labels": {LONG: 1}}}).encode(), "amd64", 1
            ),
            id="label",
        ),
        pytest.param(
            lambda: parse_config(
                json.dumps(
                    {"architecture": LONG, "rootfs": {"diff_ids": ["sha256:" + "b" * 64]}}
                ).encode(),
                "amd64",
                1,
            ),
            id="platform",
        ),
    ],
)
def test_what_strangers_wrote_is_one_short_line_of_an_error(fault: Callable[[], object]) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        fault()

    assert "x [31myyy" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= MAX_ERROR_CHARS


def test_platforms_of_an_index_are_one_short_line_of_an_error() -> None:
    error = PlatformError("amd64", index_of(*[platform(LONG, str(n)) for n in range(20)]).platforms)

    assert "it has linux/x [31myyy" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) <= MAX_ERROR_CHARS


@pytest.mark.parametrize("kind", ["json", "prettyjws"])
def test_schema_1_is_known_by_the_type_that_the_registry_says(kind: str) -> None:
    media_type = f"application/vnd.docker.distribution.manifest.v1+{kind}"

    with pytest.raises(InvalidDocumentError, match="a manifest of Docker's schema 1"):
        parse_manifest(media_type, b"{}")


def test_an_image_may_say_an_artifact_type() -> None:
    parsed = parse_manifest(OCI["manifest"], manifest_json(artifactType="text/x"))

    assert isinstance(parsed, Manifest)


def test_config_says_what_to_run() -> None:
    digest = "sha256:" + "b" * 64
    run = {
        "Entrypoint": ["/x"],
        "Cmd": ["a"],
        "Env": ["A=1"],
        "User": "web:www",
        "WorkingDir": "/w",
        "StopSignal": "SIGINT",
        "Labels": {"a": "b"},
    }
    data = json.dumps(
        {"os": "linux", "architecture": "amd64", "config": run, "rootfs": {"diff_ids": [digest]}}
    ).encode()

    parsed = parse_config(data, "amd64", 1)

    assert parsed.diff_ids == (digest,)
    assert parsed.config == ImageConfig(
        entrypoint=("/x",),
        command=("a",),
        environment=("A=1",),
        user="web:www",
        working_directory="/w",
        stop_signal="SIGINT",
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"config": []}, "'config' is not an object", id="list"),
        pytest.param({"config": {"Env": [1]}}, "'Env' is not a list of texts", id="number"),
        pytest.param({"config": {"Env": {"A": "1"}}}, "'Env' is not a list", id="env-object"),
        pytest.param({"config": {"User": 0}}, "'User' is not text", id="user"),
        pytest.param({"config": {"Cmd": "sh"}}, "'Cmd' is not a list", id="command"),
        pytest.param({"config": {"WorkingDir": []}}, "'WorkingDir' is not text", id="directory"),
        pytest.param({"config": {"StopSignal": 9}}, "'StopSignal' is not text", id="signal"),
        pytest.param({"config": {"Volumes": ["/v"]}}, "'Volumes' is not an object", id="volumes"),
        pytest.param({"config": {"ExposedPorts": [80]}}, "'ExposedPorts' is not an", id="ports"),
        pytest.param({"config": {"Labels": {"a": 1}}}, "Labels: 'a' is not text", id="label"),
        pytest.param({"history": {}}, "'history' is not a list", id="history"),
        pytest.param({"created": 5}, "'created' is not text", id="created"),
        pytest.param({"rootfs": None}, "does not name the 1 layers", id="no-rootfs"),
        pytest.param({"rootfs": {"diff_ids": ["x"]}}, "does not name the 1 layers", id="digest"),
        pytest.param(
            {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "b" * 64] * 2}},
            "'rootfs.diff_ids' does not name the 1 layers",
            id="more",
        ),
        pytest.param({"rootfs": {"type": "x"}}, "'rootfs.type' is not 'layers'", id="rootfs-type"),
        pytest.param({"os": 1}, "'os' is not text", id="os"),
    ],
)
def test_config_that_is_wrong_says_what(changes: dict[str, Any], text: str) -> None:
    whole = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"diff_ids": ["sha256:" + "b" * 64]},
        **changes,
    }

    with pytest.raises(InvalidDocumentError, match=text):
        parse_config(json.dumps(whole).encode(), "amd64", 1)


@pytest.mark.parametrize("missing", ["os", "architecture"])
def test_config_of_any_platform_must_say_which(missing: str) -> None:
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + "b" * 64]}
    whole = {"os": "linux", "architecture": "s390x", "rootfs": rootfs}

    assert parse_config(json.dumps(whole).encode(), None, 1).diff_ids == tuple(rootfs["diff_ids"])
    del whole[missing]
    with pytest.raises(InvalidDocumentError, match=f"^image config: '{missing}' is missing$"):
        parse_config(json.dumps(whole).encode(), None, 1)
