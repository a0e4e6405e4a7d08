"""Settings of the agent: what is wrong with them is one line that names file, line and key."""

import os
from pathlib import Path

import pytest

from fargate_agent.settings import read_agent_settings, read_key_file
from fargate_agent.settings_file import SettingsError

SECRET = "s3cret-of-somebody"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FARGATE_AGENT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def refusal(file: Path) -> str:
    with pytest.raises(SettingsError) as error:
        read_agent_settings(file).complete()
    text = str(error.value)
    assert "\n" not in text
    return text


def test_file_that_is_not_there_is_empty(file: Path) -> None:
    assert read_agent_settings(file).complete().region == "us-east-1"


def test_environment_wins_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('region = "eu-west-1"\ninsecure_registries = ["a:1", "b"]\n')
    monkeypatch.setenv("FARGATE_AGENT_REGION", "eu-north-1")

    settings = read_agent_settings(file).complete()

    assert (settings.region, settings.insecure_registries) == ("eu-north-1", ("a:1", "b"))


def test_list_of_the_environment_is_comma_separated(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_INSECURE_REGISTRIES", "a:1, b")

    assert read_agent_settings(file).complete().insecure_registries == ("a:1", "b")


def test_low_mark_of_the_disk_is_not_above_the_high_one(file: Path) -> None:
    file.write_text("image_disk_high_percent = 70\n")
    assert refusal(file).endswith(
        "image_disk_low_percent: must not be above image_disk_high_percent"
    )
    file.write_text("image_disk_high_percent = 70\nimage_disk_low_percent = 70\n")
    assert read_agent_settings(file).complete().image_disk_low_percent == 70


def test_mirrors_are_a_table_in_the_file_and_json_in_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["[registry_mirrors]", '"docker.io" = "m.lan"', '"r.lan/x" = ["a.lan", "no-original"]']
    file.write_text("\n".join(lines))
    assert read_agent_settings(file).complete().registry_mirrors == {
        "docker.io": ("m.lan",),
        "r.lan/x": ("a.lan", "no-original"),
    }

    monkeypatch.setenv("FARGATE_AGENT_REGISTRY_MIRRORS", '{"docker.io": "other.lan"}')
    assert read_agent_settings(file).complete().registry_mirrors == {"docker.io": ("other.lan",)}


def test_agent_serves_every_cluster_unless_it_is_pinned(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_agent_settings(file).complete().clusters == ()

    monkeypatch.setenv("FARGATE_AGENT_CLUSTERS", "prod, stage,prod")

    assert read_agent_settings(file).complete().clusters == ("prod", "stage")


def test_old_setting_of_one_cluster_still_pins_the_agent(file: Path) -> None:
    file.write_text('cluster = "default"\n')

    assert read_agent_settings(file).complete().clusters == ("default",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(
            'clusters = ["a", "b c"]\n',
            ":1: clusters: must be names of clusters, such as default",
            id="no name of a cluster",
        ),
        pytest.param(
            'cluster = "a"\nclusters = ["b"]\n',
            ":1: cluster: cluster is the old name of clusters: remove it",
            id="old and new name",
        ),
        pytest.param(
            '# one\n\nregoin = "x"\n',
            ":3: regoin: unknown setting; did you mean region?",
            id="misspelt",
        ),
        pytest.param("zzz = 1", ":1: zzz: unknown setting", id="unknown"),
        pytest.param("[region]\nx = 1", ":1: region: Input should be a valid string", id="table"),
        pytest.param(
            'cluster = "c"\nlog_max_file = 0',
            ":2: log_max_file: Input should be greater than or equal to 1",
            id="too small",
        ),
        pytest.param('log_max_size = "lots"', ":1: log_max_size: must be a size", id="no size"),
        pytest.param('log_max_size = "0k"', ":1: log_max_size: must be a size", id="endless"),
        pytest.param(
            f'log_max_size = "{"9" * 400}"',
            ":1: log_max_size: String should have at most",
            id="beyond everything",
        ),
        pytest.param(
            'eni_ifname = "eth0"',
            ":1: eni_ifname: must be letters and a number, such as eth1; eth0 leads to the",
            id="name of the metadata interface",
        ),
        pytest.param("_env_file = 'x'", ":1: _env_file: unknown setting", id="of the library"),
        pytest.param("cluster = 'c'\nregion = ", ":2: Invalid value", id="not TOML"),
        pytest.param("cluster = 'c'\nregion = [\n", ":3: Invalid value", id="ends too soon"),
        pytest.param("a = 1\na = 2", ":2: Cannot overwrite a value", id="twice"),
    ],
)
def test_fault_of_the_file_names_file_line_and_key(text: str, complaint: str, file: Path) -> None:
    file.write_text(text)

    said = refusal(file)

    assert said.startswith(f"{file}{complaint.partition(': ')[0]}: ")
    assert complaint in said


def test_file_in_another_encoding_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b"# one\ncluster = '\xe4'\n")

    assert refusal(file) == f"{file}:2: not UTF-8"


def test_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"


def test_unknown_variable_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARGATE_AGENT_REGOIN", "x")

    said = refusal(file)

    assert said == (
        "environment: FARGATE_AGENT_REGOIN: unknown setting; did you mean FARGATE_AGENT_REGION?"
    )


def test_wrong_variable_is_named_and_not_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("log_retention_s = 5\n")
    monkeypatch.setenv("FARGATE_AGENT_LOG_RETENTION_S", "soon")

    said = refusal(file)

    assert said.startswith("environment: FARGATE_AGENT_LOG_RETENTION_S: Input should be a valid")
    assert str(file) not in said


def test_all_faults_are_named_at_once_each_with_its_place(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('log_max_file = 0\nregoin = "x"\nregion = "x y"\nlog_retention_s = 9\n')
    monkeypatch.setenv("FARGATE_AGENT_LOG_RETENTION_S", "-1")
    monkeypatch.setenv("FARGATE_AGENT_CLUSTR", "c")

    reading = read_agent_settings(file)

    assert sorted(fault.partition(": Input")[0] for fault in reading.faults) == [
        f"{file}:1: log_max_file",
        f"{file}:2: regoin: unknown setting; did you mean region?",
        f"{file}:3: region: must be a region such as us-east-1",
        "environment: FARGATE_AGENT_CLUSTR: unknown setting; did you mean FARGATE_AGENT_CLUSTER?",
        "environment: FARGATE_AGENT_LOG_RETENTION_S",
    ]
    assert reading.settings.log_max_file == 2  # what is wrong has its default
    with pytest.raises(SettingsError) as error:
        reading.complete()
    assert str(error.value).splitlines() == list(reading.faults)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param('control_plane = "127.0.0.1:51680"', "must be http://", id="no scheme"),
        pytest.param('control_plane = "ftp://host"', "must be http://", id="scheme"),
        pytest.param('control_plane = "http://"', "must be http://", id="no host"),
        pytest.param('control_plane = ""', "must be http://", id="no URL"),
        pytest.param('control_plane = "http://a,b"', "must be http://", id="second URL"),
        pytest.param('control_plane = "http://a:99999"', "must be http://", id="port"),
        pytest.param('control_plane = "http://a b"', "must be http://", id="space"),
        pytest.param('aws_endpoint_url = "localhost:4566"', "must be http://", id="endpoint"),
        pytest.param('awslogs_endpoint = "//logs"', "must be http://", id="logs endpoint"),
        pytest.param('state_dir = "rel"', "must be an absolute path", id="relative"),
        pytest.param('netns_dir = "/run/../x"', "must be an absolute path", id="dots"),
        pytest.param('key_file = "~/key.toml"', "must be an absolute path", id="home"),
        pytest.param('log_host_paths = ["dev"]', "must be an absolute path", id="list of paths"),
        pytest.param(
            'containerd_address = "unix:///run/c.sock"', "must be an absolute path", id="unix:"
        ),
        pytest.param(f'socket = "/{"s" * 107}"', "must have at most 107 bytes", id="long"),
        pytest.param('cluster = "my cluster"', "must be the name of a", id="cluster"),
        pytest.param('containerd_namespace = "a/b"', "must be letters", id="namespace"),
        pytest.param('snapshotter = "Over Layfs"', "must be the name of", id="snapshotter"),
        pytest.param('eni_ifname = "eth0123456789012"', "must be letters", id="ifname"),
        pytest.param('insecure_registries = ["http://r:5000"]', "must be HOST", id="registry"),
        pytest.param('insecure_registries = ["r:5000/x"]', "must be HOST", id="registry path"),
        pytest.param('insecure_registries = ["r:x"]', "must be HOST", id="registry port"),
        pytest.param('registry_mirrors = { "r" = "m.lan" }', "must be HOST", id="prefix"),
        pytest.param('registry_mirrors = { "r.lan" = "m" }', "must be HOST", id="mirror"),
        pytest.param('registry_mirrors = { "r.lan" = "m.lan/x:1" }', "must be HOST", id="tag"),
        pytest.param('registry_mirrors = { "no-original" = "m.lan" }', "must be HOST", id="word"),
        pytest.param('registry_mirrors = { "r.lan" = [] }', "at least one", id="no mirrors"),
        pytest.param(
            'registry_mirrors = { "r.lan" = "no-original" }', "at least one", id="nothing left"
        ),
        pytest.param('ebs_snapshots = { "x" = "/x" }', "must be the id of a", id="snapshot"),
        pytest.param('logger_user = "0:5"', "must be the name of a user", id="root"),
        pytest.param('access_key_id = "AK IA"', "must be printable ASCII", id="key"),
        pytest.param("container_start_timeout_s = nan", "less than or equal", id="no number"),
        pytest.param("container_start_timeout_s = inf", "less than or equal", id="for ever"),
        pytest.param(f"log_retention_s = {'9' * 30}", "less than or equal", id="age"),
    ],
)
def test_value_that_cannot_work_is_told_what_it_must_be(text: str, rule: str, file: Path) -> None:
    file.write_text(text)

    key = text.partition(" ")[0]
    said = refusal(file)

    assert said.startswith(f"{file}:1: {key}")
    assert rule in said


@pytest.mark.parametrize(
    "text",
    [
        'control_plane = "http://10.0.0.1:51680, https://[fd00::1]:8443/prefix"',
        'insecure_registries = ["localhost:5000", "[fd00::1]:5000", "r.lan", "10.0.0.1"]',
        'registry_mirrors = { "docker.io" = "m.lan:5000/hub", "[fd00::1]:5000/x" = ["localhost"] }',
        'region = "us-gov-west-1"',
        'clusters = ["a", "b_c-1"]',
        'aws_endpoint_url = "http://localhost:4566/"',
        'snapshotter = "fuse-overlayfs"',
        'ebs_snapshots = { "snap-0123456789abcdef0" = "/srv/data.img" }',
    ],
)
def test_value_that_can_work_is_taken(text: str, file: Path) -> None:
    file.write_text(text)

    read_agent_settings(file).complete()


def test_key_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key.toml"
    path.write_text(f'access_key_id = "AKIA"\nsecret_access_key = "{SECRET}"\n')

    key = read_key_file(path)

    assert (key.access_key_id, key.secret_access_key) == ("AKIA", SECRET)
    assert SECRET not in repr(key)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param(None, ": No such file or directory", id="missing"),
        pytest.param('access_key_id = "A"', ": secret_access_key: Field required", id="half"),
        pytest.param(
            f'access_key_id = "A"\nsecret_acess_key = "{SECRET}"',
            ":2: secret_acess_key: unknown setting\n",
            id="misspelt",
        ),
        pytest.param(f"secret_access_key = {SECRET}", ":1: Invalid value", id="no quotes"),
        pytest.param(f'secret_access_key = ["{SECRET}"]\naccess_key_id = "A"', ":1: ", id="list"),
    ],
)
def test_wrong_key_file_is_refused_without_its_secret(
    text: str | None, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "key.toml"
    if text is not None:
        path.write_text(text)

    with pytest.raises(SettingsError) as error:
        read_key_file(path)

    assert str(error.value).startswith(f"{path}{complaint}")
    assert SECRET not in str(error.value)
