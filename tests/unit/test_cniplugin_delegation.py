"""Other plugins, called as programs."""

import io
import os
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.delegation import delegate, find_program
from fargate_agent.cniplugins.errors import TRY_AGAIN_LATER, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.journal import Journal


def make_call(directory: Path, config: Any = None) -> Call:
    return Call(
        verb="ADD",
        config=Fields(config or {}),
        version="1.0.0",
        network="net",
        container_id="one",
        netns="",
        ifname="eth0",
        args={},
        path=f"/nowhere:{directory}",
        stdin=b'{"all": "of it"}',
        journal=Journal("test"),
    )


def write_plugin(directory: Path, script: str, name: str = "addresses") -> None:
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_it_gets_all_of_the_configuration_and_the_verb(tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        f"cat >{tmp_path}/stdin; echo $CNI_COMMAND >{tmp_path}/verb\n"
        'echo \'{"ips": [{"address": "10.0.0.5/24"}]}\'',
    )

    result = delegate(make_call(tmp_path), "addresses", "ADD")

    assert result is not None
    assert str(result.ips[0].address) == "10.0.0.5/24"
    assert (tmp_path / "stdin").read_text() == '{"all": "of it"}'
    assert delegate(make_call(tmp_path), "addresses", "DEL") is None
    assert (tmp_path / "verb").read_text() == "DEL\n"


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ('echo \'{"code": 7, "msg": "bad"}\'; exit 1', 7, "bad"),
        ('echo \'{"code": 7, "msg": "bad", "details": "so"}\'; exit 1', 7, "bad; so"),
        ('echo \'{"code": 100, "msg": "panic"}\'', 100, "panic"),
        ("exit 3", 100, "CNI plugin addresses: it exited with 3 and named no error"),
        ("kill -9 $$", 100, "CNI plugin addresses: it exited with -9 and named no error"),
        ("echo hello", 100, "CNI plugin addresses: it printed what is no JSON object"),
        ("exit 0", 100, "CNI plugin addresses: it answered nothing"),
    ],
)
def test_its_error_is_the_answer(tmp_path: Path, script: str, code: int, message: str) -> None:
    write_plugin(tmp_path, script)

    with pytest.raises(CniError) as caught:
        delegate(make_call(tmp_path), "addresses", "ADD")

    assert (caught.value.code, caught.value.message) == (code, message)


def test_one_that_does_not_end_is_stopped_with_its_children(tmp_path: Path) -> None:
    """A child that lived on would hold the pipe open, and this test with it."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    write_plugin(tmp_path, "sleep 1000 & sleep 1000")

    with pytest.raises(CniError, match="it was not done within 0.05 s") as caught:
        delegate(make_call(tmp_path), "addresses", "ADD", timeout_s=0.05)

    os.close(write_end)
    with io.FileIO(read_end) as ended:
        assert ended.read() == b""
    assert caught.value.code == TRY_AGAIN_LATER


def test_one_that_is_just_being_installed_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "addresses"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with program.open("r+b"), pytest.raises(OSError, match="Text file busy"):
        delegate(make_call(tmp_path), "addresses", "DEL")

    assert delegate(make_call(tmp_path), "addresses", "DEL") is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/bin/true"])
def test_what_is_no_name_of_a_plugin_is_refused(name: str) -> None:
    with pytest.raises(CniError, match="invalid plugin name"):
        find_program("/bin", name)
