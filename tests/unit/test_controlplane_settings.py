"""Settings and keys of the control plane: where they come from, and what is refused in one line."""

import stat
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from fargate_agent.controlplane.access.keys import ensure_keys
from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import ControlPlaneSettings, read_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "control-plane.toml"


def test_default_subnet_is_the_first_twenty_of_the_vpc() -> None:
    settings = ControlPlaneSettings(vpc_cidr=IPv4Network("10.7.0.0/16"))

    assert [str(subnet.cidr) for subnet in settings.all_subnets] == ["10.7.0.0/20"]


def test_subnet_of_the_file_stands_beside_the_default_one(file: Path) -> None:
    file.write_text('[[subnets]]\nid = "subnet-lan"\ncidr = "192.168.7.0/24"\n')

    settings = read_settings(file)

    assert [subnet.id for subnet in settings.all_subnets] == ["subnet-default", "subnet-lan"]


def test_environment_wins_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('region = "eu-west-1"\ncluster = "from-file"\n')
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_REGION", "eu-north-1")

    settings = read_settings(file)

    assert (settings.region, settings.cluster) == ("eu-north-1", "from-file")


def test_file_is_found_by_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('cluster = "named"\n')
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_CONFIG", str(file))

    assert read_settings(None).cluster == "named"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(
            'reigon = "x"', ":1: reigon: unknown setting; did you mean region?", id="unknown key"
        ),
        pytest.param("a = [", "control-plane.toml:1: ", id="not TOML"),
        pytest.param('account = "12"', "account: ", id="bad account"),
        pytest.param(f'account = "{"１" * 12}"', "account: ", id="wide digits"),
        pytest.param('listen = "https://x:1"', "listen: ", id="TLS"),
        pytest.param('listen = "http://localhost"', "the port is missing", id="no port"),
        pytest.param(
            "stopped_task_retention_s = 60", "stopped_task_retention_s", id="short memory"
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.0.1.0/24"',
            "subnets subnet-default (10.0.0.0/20) and subnet-b (10.0.1.0/24) overlap",
            id="overlap",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\ngateway = "10.2.0.1"',
            ":1: subnets.0: subnet-b: gateway 10.2.0.1 is not a host of 10.1.0.0/24",
            id="gateway outside",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\ngateway = "10.1.0.255"',
            "subnet-b: gateway",
            id="gateway is broadcast",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "macvlan"\n'
            'parent = "eth1"\nnat = false',
            "subnet-b: kind macvlan has no nat",
            id="macvlan that is private",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "macvlan"',
            "subnet-b: kind macvlan needs parent",
            id="macvlan without parent",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "cni"',
            "subnet-b: kind cni needs network",
            id="cni without network",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nparent = "eth0"',
            "subnet-b: kind veth has no parent",
            id="veth with parent",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "nic"',
            "subnet-b: kind nic needs nics",
            id="nic without nics",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "nic"\n'
            'nics = ["52:54:00:00:00:01", "52:54:00:00:00:01"]',
            "subnet-b: nics has 52:54:00:00:00:01 twice",
            id="one nic twice",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "vlan"\ntrunk = "eth1"',
            "subnet-b: kind vlan needs vlan_ids",
            id="vlan without ids",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "vlan"\ntrunk = "eth1"\n'
            'vlan_ids = "4000-4095"',
            "subnet-b: vlan_ids 4000-4095 is not within 1-4094",
            id="vlan id too high",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/24"\nkind = "vlan"\ntrunk = "eth1"\n'
            'vlan_ids = "100-110"\n'
            '[[subnets]]\nid = "subnet-c"\ncidr = "10.2.0.0/24"\nkind = "vlan"\ntrunk = "eth1"\n'
            'vlan_ids = "110"',
            "subnets subnet-b and subnet-c have VLANs of eth1 in common",
            id="vlans in common",
        ),
        pytest.param(
            '[[subnets]]\nid = "subnet-b"\ncidr = "10.1.0.0/30"', "subnet-b: cidr", id="tiny"
        ),
    ],
)
def test_settings_are_refused_in_one_line_that_names_the_place(
    text: str, complaint: str, file: Path
) -> None:
    file.write_text(text)

    with pytest.raises(StartError) as error:
        read_settings(file)

    assert complaint in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://h:99999/S3CRET", id="port too high"),
        pytest.param("https://h:S3CRET/x", id="port is no number"),
        pytest.param("http://[::1/S3CRET", id="half an address"),
        pytest.param("http://xn--/S3CRET", id="no name of a host"),
        pytest.param("http:///S3CRET", id="no host"),
        pytest.param("http://h/S3 CRET", id="space"),
        pytest.param("ftp://h/S3CRET", id="not the web"),
    ],
)
def test_webhook_that_can_not_be_posted_to_is_refused_without_its_url(url: str, file: Path) -> None:
    file.write_text(f'cluster = "c"\nevents_webhook = "{url}"\n')

    with pytest.raises(StartError) as error:
        read_settings(file)

    told = "events_webhook: must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH"
    assert str(error.value) == f"{file}:2: {told}"


@pytest.mark.parametrize(
    "url", ["http://h", "https://u:p@h.example:8443/x?y=z", "http://[::1]:80/", "http://ü.example/"]
)
def test_webhook_that_can_be_posted_to_is_taken(url: str, file: Path) -> None:
    file.write_text(f'events_webhook = "{url}"\n')

    assert read_settings(file).events_webhook == url


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        pytest.param("postgresql+asyncpg://u:S3CRET@h:port/db", "must be ", id="port is no number"),
        pytest.param("postgresql+asyncpg://u:S3CRET@h:99999/db", "the port ", id="port too high"),
        pytest.param("postgresql+asyncpg://u:S3CRET@[::1/db", "must be ", id="half an address"),
        pytest.param("postgresql+asyncpg://u:S3CRET@a..b/db", "must be ", id="no name of a host"),
        pytest.param("postgresql+asyncpg://h/db?port=S3CRET", "must be ", id="port as an option"),
        pytest.param("postgresql+asyncpg://h/db?sslmode=S3CRET", "has an option ", id="option"),
        pytest.param("sqlite://S3CRET/state.db", "must be ", id="file on a host"),
        pytest.param("mysql://u:S3CRET@h/db", "must be ", id="another database"),
    ],
)
def test_database_that_can_not_be_connected_to_is_refused_without_its_url(
    url: str, fault: str, file: Path
) -> None:
    file.write_text(f'cluster = "c"\ndatabase = "{url}"\n')

    with pytest.raises(StartError) as error:
        read_settings(file)

    assert str(error.value).startswith(f"{file}:2: database: {fault}")
    assert "S3CRET" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////srv/state.db",
        "postgresql+asyncpg://u:p@[::1]:5432/db?ssl=require",
        "postgresql+asyncpg://u@/db?host=/run/postgresql&port=5433",
        "postgresql+asyncpg://u:p@/db?host=a:5432&host=b:5432",
    ],
)
def test_database_that_can_be_connected_to_is_taken(url: str, file: Path) -> None:
    file.write_text(f'database = "{url}"\n')

    assert read_settings(file).database_url == url


def test_database_by_the_old_name_of_its_driver_is_taken(file: Path) -> None:
    file.write_text('database = "sqlite+aiosqlite:////srv/state.db"\n')

    assert read_settings(file).database_url == "sqlite:////srv/state.db"


def test_unknown_variable_of_the_environment_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("")
    monkeypatch.setenv("FARGATE_CONTROL_PLANE_REIGON", "x")

    with pytest.raises(StartError, match="FARGATE_CONTROL_PLANE_REIGON"):
        read_settings(file)


def test_file_that_was_asked_for_must_be_there(file: Path) -> None:
    with pytest.raises(StartError, match="no such file"):
        read_settings(file)


def test_keys_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "keys.toml"

    made, read_again = ensure_keys(path), ensure_keys(path)

    assert made == read_again
    assert sorted(key.principal for key in made.values()) == ["admin", "agent"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_wrong_key_is_refused_without_showing_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    secret = "s3cret-of-somebody"
    path.write_text(
        f'[[key]]\naccess_key_id = "{"A" * 20}"\nsecret_access_key = "{secret}"\nprincipal = "root"'
    )

    with pytest.raises(StartError, match=r"key\.0\.principal") as error:
        ensure_keys(path)

    assert secret not in str(error.value)
