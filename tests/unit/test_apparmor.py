"""The AppArmor profile of containers: whether a host has it, and how it is loaded."""

from pathlib import Path

import pytest

from fargate_agent import apparmor

PROFILES = "sub/a (enforce)\nfargate-default2 (enforce)\nfargate-default (enforce)\n"


def make_host(root: Path, enabled: str, profiles: str | None) -> Path:
    parameters = root / "sys/module/apparmor/parameters"
    parameters.mkdir(parents=True)
    (parameters / "enabled").write_text(f"{enabled}\n")
    if profiles is not None:
        (root / "sys/kernel/security/apparmor").mkdir(parents=True)
        (root / "sys/kernel/security/apparmor/profiles").write_text(profiles)
    return root


@pytest.mark.parametrize(
    ("enabled", "profiles", "found"),
    [
        pytest.param("Y", PROFILES, "fargate-default", id="loaded"),
        pytest.param("Y", PROFILES.replace("default (", "other ("), None, id="others are"),
        pytest.param("Y", None, None, id="not to be seen"),
        pytest.param("N", PROFILES, None, id="off"),
    ],
)
def test_profile_is_used_where_it_is_loaded(
    tmp_path: Path, enabled: str, profiles: str | None, found: str | None
) -> None:
    host = make_host(tmp_path, enabled, profiles)

    assert apparmor.find_profile(host) == found
    assert apparmor.is_on(host) is (enabled == "Y")


def test_host_without_apparmor_has_neither(tmp_path: Path) -> None:
    assert apparmor.find_profile(tmp_path) is None
    assert not apparmor.is_on(tmp_path)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose AppArmor is on, and the only directory with programs."""
    monkeypatch.setattr(apparmor, "is_on", lambda: True)
    monkeypatch.setattr(apparmor, "find_profile", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_profile_is_given_to_the_parser(programs: Path) -> None:
    parser = programs / "apparmor_parser"
    parser.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$0.told"\n')
    parser.chmod(0o755)

    assert apparmor.load() is None
    told = (programs / "apparmor_parser.told").read_text().splitlines()
    assert told == ["--replace", "--skip-cache", str(apparmor.FILE)]
    assert f"profile {apparmor.PROFILE} " in apparmor.FILE.read_text()


def test_parser_that_refuses_is_quoted(programs: Path) -> None:
    parser = programs / "apparmor_parser"
    parser.write_text("#!/bin/sh\necho no such rule >&2\nexit 1\n")
    parser.chmod(0o755)

    assert apparmor.load() == "apparmor_parser: no such rule"


@pytest.mark.usefixtures("programs")
def test_parser_that_is_missing_is_named() -> None:
    assert apparmor.load() == "there is no apparmor_parser: apt-get install apparmor"
