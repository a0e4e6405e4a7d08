"""Settings of registries: what is refused, and that no password is shown."""

from pathlib import Path

import pytest

from fargate_agent.machine.logins import find_login_faults
from fargate_agent.setting_faults import find_faults
from fargate_agent.settings import read_agent_settings

PASSWORD = "s3cret-pa55"


def faults_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    return "\n".join(read_agent_settings(file).faults)


@pytest.mark.parametrize(
    "value",
    [
        f"https://ann:{PASSWORD}@proxy.test:3128",
        f"http://ann:{PASSWORD}@proxy.test",
        f"http://ann:{PASSWORD}/@proxy.test:3128",
        f"http://ann:{PASSWORD}@proxy.test:3128/path",
        f"ann:{PASSWORD}@proxy.test:3128",
        f"http://ann:{PASSWORD}#@proxy.test:3128",
        f"http://ann:{PASSWORD}@proxy.test:99999",
    ],
)
def test_proxy_that_cannot_be_is_refused_without_its_password(tmp_path: Path, value: str) -> None:
    general = faults_of(tmp_path, f'registry_proxy = "{value}"\n')
    own = faults_of(tmp_path, f'[registries."a.test"]\nproxy = "{value}"\n')

    assert "agent.toml:1: registry_proxy: must be http://HOST:PORT or" in general
    assert "agent.toml:2: registries.a.test.proxy: must be http://HOST:PORT or" in own
    assert PASSWORD not in general + own


@pytest.mark.parametrize("value", ["a b", "http://a.test", "10.0.0.0/99", "a.test/x", ""])
def test_hosts_without_a_proxy_that_cannot_be_are_refused(tmp_path: Path, value: str) -> None:
    assert "must be *, HOST, HOST:PORT" in faults_of(tmp_path, f"registry_no_proxy = ['{value}']\n")


def test_settings_that_are_right_show_no_password(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'registry_proxy = "http://ann:{PASSWORD}@proxy.test:3128"\n'
        'registry_no_proxy = ["*", "a.test", ".b.test", "*.c.test", "10.0.0.0/8", "fd00::1"]\n'
        f'[registries."a.test:5000"]\nproxy = "http://ann:{PASSWORD}@own.test:3128"\n'
        '[registries."b.test"]\nproxy = ""\n'
    )

    reading = read_agent_settings(file)

    assert not reading.faults
    assert reading.settings.registries["b.test"].proxy == ""
    assert PASSWORD in reading.settings.registry_proxy
    assert PASSWORD not in repr(reading.settings)


def test_unknown_setting_of_a_registry_is_named(tmp_path: Path) -> None:
    text = faults_of(tmp_path, '[registries."a.test"]\nca = "/x"\n')

    assert "agent.toml:2: registries.a.test.ca: " in text


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file or directory"), ("text\n", "the file holds no certificate in PEM form")],
)
def test_check_names_a_file_of_certificates_that_cannot_be_used(
    tmp_path: Path, content: str | None, text: str
) -> None:
    file, authorities = tmp_path / "agent.toml", tmp_path / "ca.pem"
    if content is not None:
        authorities.write_text(content)
    file.write_text(
        f'socket = "{tmp_path}/s"\n[registries."a.test:5000"]\nca_file = "{authorities}"\n'
    )

    found = dict(find_faults(read_agent_settings(file).settings))

    assert found["registries"] == f'"a.test:5000".ca_file: {authorities}: {text}'


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o606, 1)])
def test_doctor_tells_of_a_file_of_passwords_that_others_can_read(
    tmp_path: Path, mode: int, count: int
) -> None:
    file = tmp_path / "config.json"
    file.write_text("{}")
    file.chmod(mode)

    found = list(find_login_faults(file))

    assert len(found) == count
    assert all(f"has mode {mode:04o}" in one.what for one in found)
    assert list(find_login_faults(None)) == list(find_login_faults(tmp_path / "none")) == []
