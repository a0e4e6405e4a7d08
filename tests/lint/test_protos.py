"""Our `.proto` files: what was generated from them is committed, and containerd's own agree."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from tests.fixtures.programs import leave_out

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PROTOS: Final = CHECKOUT / "protos"
PACKAGE: Final = Path("fargate_agent/containerd/pb")

GO_SOURCES: Final = Path("/usr/share/gocode/src")
"""Where Debian's packages of Go sources are. Source: Debian, dh-golang."""

CONTAINERD: Final = "github.com/containerd/containerd"
CGROUPS: Final = "github.com/containerd/cgroups"
THEIRS: Final = {
    f"{CONTAINERD}/api/types/descriptor.proto": "golang-github-containerd-containerd-dev",
    f"{CONTAINERD}/api/types/mount.proto": "golang-github-containerd-containerd-dev",
    f"{CONTAINERD}/api/types/metrics.proto": "golang-github-containerd-containerd-dev",
    f"{CONTAINERD}/api/types/task/task.proto": "golang-github-containerd-containerd-dev",
    f"{CONTAINERD}/api/events/task.proto": "golang-github-containerd-containerd-dev",
    f"{CONTAINERD}/runtime/v2/runc/options/oci.proto": "golang-github-containerd-containerd-dev",
    **{
        f"{CONTAINERD}/api/services/{service}.proto": "golang-github-containerd-containerd-dev"
        for service in (
            "version/v1/version",
            "introspection/v1/introspection",
            "namespaces/v1/namespace",
            "leases/v1/leases",
            "content/v1/content",
            "images/v1/images",
            "snapshots/v1/snapshots",
            "diff/v1/diff",
            "containers/v1/containers",
            "tasks/v1/tasks",
            "events/v1/events",
        )
    },
    f"{CGROUPS}/stats/v1/metrics.proto": "golang-github-containerd-cgroups-dev",
    f"{CGROUPS}/v2/stats/metrics.proto": "golang-github-containerd-cgroups-dev",
    "github.com/gogo/protobuf/gogoproto/gogo.proto": "golang-github-gogo-protobuf-dev",
    "github.com/gogo/googleapis/google/rpc/status.proto": "golang-github-gogo-googleapis-dev",
}
"""containerd's own files, and the Debian package of each."""


def test_generated_code_is_what_the_protos_give(tmp_path: Path) -> None:
    subprocess.run([sys.executable, PROTOS / "generate.py", tmp_path], check=True, timeout=60)

    generated = {file.name: file.read_text() for file in (tmp_path / PACKAGE).glob("*.py*")}
    committed = {file.name: file.read_text() for file in (CHECKOUT / PACKAGE).glob("*.py*")}
    assert generated == committed, "run protos/generate.py"


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    sources = [str(path.relative_to(PROTOS)) for path in sorted((PROTOS / PACKAGE).glob("*.proto"))]
    return _compile([PROTOS], sources, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    if missing := sorted({p for file, p in THEIRS.items() if not (GO_SOURCES / file).exists()}):
        leave_out(f"Debian's {' '.join(missing)} are not installed")
    directory = tmp_path_factory.mktemp("theirs")
    # gogo and google/rpc are imported by their short names; a file that has two names
    # would be compiled twice, so each is where it is found once only
    short_names = {
        "gogoproto/gogo.proto": "github.com/gogo/protobuf/gogoproto/gogo.proto",
        "google/rpc/status.proto": "github.com/gogo/googleapis/google/rpc/status.proto",
    }
    for name, file in short_names.items():
        (directory / name).parent.mkdir(parents=True)
        shutil.copy(GO_SOURCES / file, directory / name)
    sources = [file for file in THEIRS if file not in short_names.values()]
    return _compile([directory, GO_SOURCES], sources, directory)


def _compile(roots: list[Path], sources: list[str], into: Path) -> FileDescriptorSet:
    """Return what protoc makes of the sources and of all they import."""
    output = into / "descriptors"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_out={output}"]
    paths = [f"--proto_path={root}" for root in roots]
    subprocess.run(
        [*command, "--include_imports", *paths, *sources],
        check=True,
        timeout=60,
        capture_output=True,
    )
    return FileDescriptorSet.FromString(output.read_bytes())


def _facts(files: FileDescriptorSet) -> dict[str, tuple[object, ...]]:
    """Say of every field, enum value and method, by its full name, what decides the bytes."""
    facts: dict[str, tuple[object, ...]] = {}
    for file in files.file:
        if file.package == "google.protobuf":
            continue
        for message in file.message_type:
            facts.update(_of_message(file.package, message))
        for enum in file.enum_type:
            facts.update(_of_enum(file.package, enum))
        for service in file.service:
            facts.update(_of_service(file.package, service))
    return facts


Facts = Iterator[tuple[str, tuple[object, ...]]]


def _of_message(scope: str, message: DescriptorProto) -> Facts:
    name = f"{scope}.{message.name}"
    yield name, ("message", message.options.map_entry)
    for field in message.field:
        yield f"{name}.{field.name}", _of_field(field)
    for nested in message.nested_type:
        yield from _of_message(name, nested)
    for enum in message.enum_type:
        yield from _of_enum(name, enum)


def _of_field(field: FieldDescriptorProto) -> tuple[object, ...]:
    in_oneof = field.HasField("oneof_index")
    return "field", field.number, field.type, field.label, field.type_name, in_oneof


def _of_enum(scope: str, enum: EnumDescriptorProto) -> Facts:
    yield f"{scope}.{enum.name}", ("enum",)
    for value in enum.value:
        yield f"{scope}.{enum.name}.{value.name}", ("value", value.number)


def _of_service(scope: str, service: ServiceDescriptorProto) -> Facts:
    yield f"{scope}.{service.name}", ("service",)
    for method in service.method:
        streaming = method.client_streaming, method.server_streaming
        shape = ("method", method.input_type, method.output_type, *streaming)
        yield f"{scope}.{service.name}.{method.name}", shape


def test_everything_in_our_protos_is_the_same_in_those_of_containerd(
    ours: FileDescriptorSet, theirs: FileDescriptorSet
) -> None:
    our_facts, their_facts = _facts(ours), _facts(theirs)

    different = {
        name: f"{fact} here, {their_facts.get(name, 'nothing')} there"
        for name, fact in our_facts.items()
        if their_facts.get(name) != fact
    }

    assert different == {}


def test_our_protos_cover_every_service_of_the_agent(ours: FileDescriptorSet) -> None:
    services = {file.package.split(".")[-2] for file in ours.file if file.service}

    assert services == {
        "version",
        "introspection",
        "namespaces",
        "leases",
        "content",
        "images",
        "snapshots",
        "diff",
        "containers",
        "tasks",
        "events",
    }
