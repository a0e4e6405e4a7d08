"""The logger with the driver `splunk`, in front of a collector that checks what it gets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.logdriver.uri import render_uri
from tests.fixtures.busybox import run_container
from tests.fixtures.drivers import numbered, write_lines
from tests.fixtures.hec import TOKEN, HecServer, Splunk, hec_server, make_certificate
from tests.fixtures.loggers import LOGGER, StartLogger
from tests.fixtures.metadata import metadata_server


@pytest.fixture
def hec() -> Iterator[HecServer]:
    with hec_server() as server:
        yield server


@pytest.fixture
def splunk(start_logger: StartLogger, tmp_path: Path) -> Splunk:
    return Splunk(start_logger, tmp_path, "splunk")


def test_line_arrives_as_an_event_with_time_host_and_tag(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(
        hec,
        splunk_source="src",
        splunk_sourcetype="st",
        splunk_index="main",
        splunk_tag="{{.Name}}",
    )

    logger.write(b'hello "there" \\ \t\xff\n')
    logger.write(b"trouble", to=logger.stderr)
    code = logger.finish()

    assert code == 0
    out, err = hec.events
    assert out["event"] == {"line": 'hello "there" \\ \t\ufffd', "source": "stdout", "tag": "web"}
    assert err["event"] == {"line": "trouble", "source": "stderr", "tag": "web"}
    assert (out["source"], out["sourcetype"], out["index"]) == ("src", "st", "main")
    assert out["host"]
    assert float(out["time"]) == pytest.approx(float(err["time"]), abs=5)


def test_tag_is_the_short_id_by_default(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec)

    logger.write(b"x\n")
    logger.finish()

    assert hec.events[0]["event"]["tag"] == "0123456789ab"


def test_connection_is_verified_before_the_container_starts(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec)

    assert logger.ready == b"\0"
    assert hec.requests == [("OPTIONS", "/services/collector/event/1.0", 0)]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param(b'{"a": [1, 2.5], "b": "\\u00e9"}', {"a": [1, 2.5], "b": "é"}, id="an object"),
        pytest.param(b" 12 ", 12, id="a number"),
        pytest.param(b"null", None, id="nothing"),
        pytest.param(b"{not json", "{not json", id="text that looks like it"),
        pytest.param(b"NaN", "NaN", id="no number of JSON"),
        pytest.param(b'{"a": NaN}', '{"a": NaN}', id="no number inside"),
        pytest.param(b"[" * 10_000, "[" * 10_000, id="too deep"),
        pytest.param(b"{} {}", "{} {}", id="two objects"),
        pytest.param(b'"\xff"', '"\ufffd"', id="not UTF-8"),
        pytest.param(b"", "", id="an empty line"),
    ],
)
def test_json_format_embeds_what_is_json(
    splunk: Splunk, hec: HecServer, line: bytes, value: object
) -> None:
    logger = splunk.start(hec, splunk_format="json")

    logger.write(line + b"\n")
    logger.finish()

    assert [event["event"]["line"] for event in hec.events] == [value]


def test_raw_format_is_tag_attributes_and_line_and_skips_blank_lines(
    splunk: Splunk, hec: HecServer
) -> None:
    logger = splunk.start(
        hec,
        splunk_format="raw",
        labels="tier",
        env_regex="^APP_",
        container_labels='{"tier": "front", "other": "x"}',
        container_env='{"APP_MODE": "a\\"b", "HOME": "/"}',
    )

    logger.write(b'one "1"\n\n  \t\ntwo\n')
    logger.finish()

    start = '0123456789ab APP_MODE=a"b tier=front '
    assert [event["event"] for event in hec.events] == [start + 'one "1"', start + "two"]


def test_labels_and_environment_are_attributes(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(
        hec,
        labels_regex="^t",
        env="MODE,NONE",
        container_labels='{"tier": "front", "other": "x"}',
        container_env='{"MODE": "m", "HOME": "/"}',
    )

    logger.write(b"x\n")
    logger.finish()

    assert hec.events[0]["event"]["attrs"] == {"MODE": "m", "tier": "front"}


def test_requests_hold_up_to_1000_events(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec, mode="blocking", max_buffer_size="10m")

    logger.write(b"\n" * 2500)
    logger.finish()

    counts = [count for method, _, count in hec.requests if method == "POST"]
    assert sum(counts) == 2500
    assert max(counts) == 1000


@pytest.mark.parametrize("level", ["-1", "1", "9"])
def test_requests_are_compressed_if_wanted(splunk: Splunk, hec: HecServer, level: str) -> None:
    logger = splunk.start(hec, splunk_gzip="true", splunk_gzip_level=level)

    write_lines(logger, numbered(100))
    logger.finish()

    assert hec.encodings == {"gzip"}
    assert hec.lines() == numbered(100)


def test_long_line_comes_in_pieces(splunk: Splunk, hec: HecServer) -> None:
    logger = splunk.start(hec)

    logger.write(b"x" * 40_000 + b"\n")
    logger.finish()

    assert [len(line) for line in hec.lines()] == [16_384, 16_384, 7_232]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({"splunk_url": ""}, "splunk-url is required", id="no URL"),
        pytest.param({"splunk_token": ""}, "splunk-token is required", id="no token"),
        pytest.param(
            {"splunk_url": "http://host:1/path"},
            "splunk: expected format scheme://dns_name_or_ip:port for splunk-url",
            id="URL with a path",
        ),
        pytest.param(
            {"splunk_format": "xml"},
            "Unknown format specified xml, supported formats are inline, json and raw",
            id="format",
        ),
        pytest.param(
            {"splunk_gzip": "1", "splunk_gzip_level": "10"},
            "not supported level '10' for splunk-gzip-level (supported values between -1 and 9)",
            id="level",
        ),
        pytest.param(
            {"splunk_tag": "{{.Env}}"},
            "unsupported log tag '{{.Env}}': only {{.ID}}, {{.FullID}}, {{.Name}}, "
            "{{.ImageName}}, {{.DaemonName}} can be used",
            id="tag",
        ),
        pytest.param(
            {"splunk_capath": "/nonexistent"}, "No such file or directory", id="CA certificate"
        ),
        pytest.param(
            {"labels": "a", "container_labels": '["a"]'},
            "container-labels: expected a JSON object of strings",
            id="labels",
        ),
    ],
)
def test_container_does_not_start_with_a_wrong_option(
    splunk: Splunk, hec: HecServer, options: dict[str, str], text: str
) -> None:
    if "splunk_capath" in options:
        options = {**options, "splunk_url": "https://127.0.0.1:1"}

    logger = splunk.start(hec, **options)

    assert logger.ready == b""
    assert logger.wait() == 1
    assert text in splunk.fault.read_text()
    assert TOKEN not in splunk.fault.read_text()


def test_container_does_not_start_without_a_collector(splunk: Splunk, hec: HecServer) -> None:
    hec.stop()

    logger = splunk.start(hec)

    assert logger.ready == b""
    assert splunk.fault.read_text() == (
        f"dial tcp 127.0.0.1:{hec.port}: connect: connection refused"
    )


def test_container_does_not_start_when_the_server_is_no_collector(
    splunk: Splunk, hec: HecServer
) -> None:
    hec.status = 404

    logger = splunk.start(hec)

    assert logger.ready == b""
    assert splunk.fault.read_text().startswith("splunk: failed to verify connection - 404")


def test_container_starts_without_a_collector_if_nothing_is_verified(
    splunk: Splunk, hec: HecServer
) -> None:
    hec.stop()
    logger = splunk.start(hec, splunk_verify_connection="false")
    write_lines(logger, numbered(10))

    hec.start()
    logger.finish()

    assert logger.ready == b"\0"
    assert hec.lines() == numbered(10)


@pytest.fixture
def metadata() -> Iterator[str]:
    answers: dict[str, object] = {
        "/token": {"token": TOKEN},
        "/empty": {"token": ""},
        "/env": {"env": {"MODE": "m"}},
    }
    with metadata_server(answers) as url:
        yield url


def test_token_and_environment_come_from_their_endpoints(
    splunk: Splunk, hec: HecServer, metadata: str
) -> None:
    logger = splunk.start(
        hec,
        splunk_token="",
        splunk_token_endpoint=metadata + "/token",
        env="MODE",
        container_env_endpoint=metadata + "/env",
    )

    logger.write(b"x\n")
    logger.finish()

    assert hec.events[0]["event"]["attrs"] == {"MODE": "m"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("/empty", "returned an empty splunk token", id="empty"),
        pytest.param("/other", "/other: 403: not yours", id="refused"),
        pytest.param("/env", "returned no splunk token", id="something else"),
    ],
)
def test_container_does_not_start_without_the_token_of_the_endpoint(
    splunk: Splunk, hec: HecServer, metadata: str, path: str, text: str
) -> None:
    logger = splunk.start(hec, splunk_token="", splunk_token_endpoint=metadata + path)

    assert logger.ready == b""
    assert text in splunk.fault.read_text()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("localhost", {"splunk_capath": "CA"}, id="by its CA"),
        pytest.param(
            "inside.example",
            {"splunk_capath": "CA", "splunk_caname": "inside.example"},
            id="by another name",
        ),
        pytest.param("other.example", {"splunk_insecureskipverify": "true"}, id="by nothing"),
    ],
)
def test_collector_is_trusted(
    splunk: Splunk, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    certificate, context = make_certificate(tmp_path, name)
    told = {key: str(certificate) if text == "CA" else text for key, text in options.items()}
    with hec_server(tls=context) as hec:
        logger = splunk.start(hec, **told)

        write_lines(logger, numbered(10))
        code = logger.finish()

        assert code == 0
        assert hec.lines() == numbered(10)


def test_collector_without_a_known_certificate_is_not_trusted(
    splunk: Splunk, tmp_path: Path
) -> None:
    _, context = make_certificate(tmp_path)
    with hec_server(tls=context) as hec:
        logger = splunk.start(hec)

        assert logger.ready == b""
        assert "certificate verify failed" in splunk.fault.read_text()


@pytest.mark.root
async def test_output_of_a_container_has_arrived_when_containerd_has_deleted_it(
    containerd: Containerd, tmp_path: Path
) -> None:
    _, context = make_certificate(tmp_path)
    with hec_server(tls=context) as hec:
        flags = {
            "log-driver": "splunk",
            "container-id": "210987654321",
            "container-name": "test-container-name",
            "splunk-url": hec.url,
            "splunk-token": TOKEN,
            "splunk-insecureskipverify": "true",
        }

        await run_container(
            containerd, "printf test-log", render_uri(LOGGER, flags), terminal=False
        )

        assert [event["event"] for event in hec.events] == [
            {"line": "test-log", "source": "stdout", "tag": "210987654321"}
        ]
