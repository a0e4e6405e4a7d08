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
        read_agent_settings(file)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_file_that_is_not_there_is_empty(file: Path) -> None:
    assert read_agent_settings(file).region == "us-east-1"


def test_environment_wins_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('region = "eu-west-1"\ninsecure_registries = ["a:1", "b"]\n')
    monkeypatch.setenv("FARGATE_AGENT_REGION", "eu-north-1")

    settings = read_agent_settings(file)

    assert (settings.region, settings.insecure_registries) == ("eu-north-1", ("a:1", "b"))


def test_list_of_the_environment_is_comma_separated(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_INSECURE_REGISTRIES", "a:1, b")

    assert read_agent_settings(file).insecure_registries == ("a:1", "b")


def test_agent_serves_every_cluster_unless_it_is_pinned(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_agent_settings(file).clusters == ()

    monkeypatch.setenv("FARGATE_AGENT_CLUSTERS", "prod, stage,prod")

    assert read_agent_settings(file).clusters == ("prod", "stage")


def test_old_setting_of_one_cluster_still_pins_the_agent(file: Path) -> None:
    file.write_text('cluster = "default"\n')

    assert read_agent_settings(file).clusters == ("default",)


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
            ": cluster is the old name of clusters: remove it",
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
        pytest.param(
            'log_max_size = "lots"', ":1: log_max_size: String should match", id="no size"
        ),
        pytest.param('log_max_size = "0k"', ":1: log_max_size: String should match", id="endless"),
        pytest.param(
            f'log_max_size = "{"9" * 400}"',
            ":1: log_max_size: String should have at most",
            id="beyond everything",
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


def test_several_faults_are_counted(file: Path) -> None:
    file.write_text("log_max_file = 0\nlog_retention_s = -1\n")

    assert refusal(file).endswith("; and 1 more")


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
            ":2: secret_acess_key: unknown setting; and 1 more",
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
