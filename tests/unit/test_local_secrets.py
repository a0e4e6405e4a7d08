"""Values that are kept on a machine without AWS: how, and for whom they are looked up."""

import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import plan_task
from fargate_agent.secrets.local_names import candidates, name_to_set
from fargate_agent.secrets.local_source import LocalSource, find
from fargate_agent.secrets.local_store import (
    MAX_NAMES,
    MAX_VALUE_BYTES,
    LocalSecret,
    LocalSecrets,
    LocalSecretsError,
)
from fargate_agent.secrets.references import parse_reference
from tests.messages import site, task_message

REGION = "us-east-1"
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/"
TASK = plan_task(task_message(), site(Path("/nowhere")))
SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/db-AbC1eF"
PARAMETER_ARN = "arn:aws:ssm:us-east-1:123456789012:parameter/prod/db"


def test_value_is_kept_for_the_next_agent_and_can_be_replaced(tmp_path: Path) -> None:
    began = datetime.now(UTC)
    assert LocalSecrets(tmp_path).put("prod/db", "one") is False
    assert LocalSecrets(tmp_path).put("prod/db", "two\nlines\n") is True

    kept = LocalSecrets(tmp_path).read()

    assert kept.keys() == {"prod/db"}
    assert (kept["prod/db"].value, kept["prod/db"].previous) == ("two\nlines\n", "one")
    assert began <= kept["prod/db"].set_at <= datetime.now(UTC)


def test_value_that_is_removed_is_gone(tmp_path: Path) -> None:
    store = LocalSecrets(tmp_path)
    store.put("a", "1")
    store.put("b", "2")

    assert (store.remove("a"), store.remove("a")) == (True, False)
    assert store.read().keys() == {"b"}


def test_nothing_is_kept_in_the_clear_and_nobody_else_reads_it(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    LocalSecrets(directory).put("name-of-it", "geheim")

    assert {path.name for path in directory.iterdir()} == {"secrets", "secrets.key"}
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"geheim" not in path.read_bytes()
        assert b"name-of-it" not in path.read_bytes()
    assert "geheim" not in repr(LocalSecrets(directory).read())


def test_nothing_set_needs_no_key(tmp_path: Path) -> None:
    assert LocalSecrets(tmp_path / "none").read() == {}
    assert LocalSecrets(tmp_path / "none").remove("a") is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        pytest.param("a", "", "the value is empty", id="empty"),
        pytest.param("a", "x" * (MAX_VALUE_BYTES + 1), "more than 64 KiB", id="large"),
        pytest.param("a", "ü" * (MAX_VALUE_BYTES // 2 + 1), "more than 64 KiB", id="in bytes"),
        pytest.param("a", "x\0", "NUL character", id="NUL"),
        pytest.param("", "x", "a name has 1 to 2048 letters", id="no name"),
        pytest.param("a b", "x", "a name has 1 to 2048 letters", id="blank"),
        pytest.param("a\n", "x", "a name has 1 to 2048 letters", id="newline"),
        pytest.param("/a:3", "x", "no reference means that name", id="version"),
        pytest.param("secretsmanager:a", "x", "no reference means that name", id="prefix"),
        pytest.param(f"{SECRET_ARN}:key::", "x", "no reference means that name", id="key"),
        pytest.param(f"{SECRET_ARN}:", "x", "no reference means that name", id="colon"),
        pytest.param(f"{PARAMETER_ARN}:label", "x", "no reference means that name", id="label"),
        pytest.param("arn:aws:s3:::b/k", "x", "no reference means that name", id="bucket"),
    ],
)
def test_what_no_secret_of_aws_can_be_is_refused(
    tmp_path: Path, name: str, value: str, text: str
) -> None:
    with pytest.raises(LocalSecretsError, match=text):
        LocalSecrets(tmp_path).put(name, value)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [SECRET_ARN, PARAMETER_ARN])
def test_arn_is_a_name(tmp_path: Path, name: str) -> None:
    LocalSecrets(tmp_path).put(name, "x")

    assert find(LocalSecrets(tmp_path).read(), parse_reference(name, "us-east-1")) is not None


def test_largest_value_is_kept(tmp_path: Path) -> None:
    LocalSecrets(tmp_path).put("a", "x" * MAX_VALUE_BYTES)

    assert len(LocalSecrets(tmp_path).read()["a"].value) == MAX_VALUE_BYTES


def test_store_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalSecrets(tmp_path)
    store._write(
        {str(n): LocalSecret(value="x", set_at=datetime.now(UTC)) for n in range(MAX_NAMES)}
    )
    store.put("0", "another value of one that is there")
    with pytest.raises(LocalSecretsError, match="1000 secrets are kept already"):
        store.put("one-more", "x")
    monkeypatch.setattr("fargate_agent.secrets.local_store.MAX_BYTES", 1000)
    with pytest.raises(LocalSecretsError, match="all secrets together"):
        store.put("0", "x")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda d: (d / "secrets.key").unlink(), "No such file", id="no key"),
        pytest.param(
            lambda d: (d / "secrets.key").write_bytes(os.urandom(32)), "isn't the key", id="other"
        ),
        pytest.param(lambda d: (d / "secrets.key").write_bytes(b"x"), "is no key", id="short key"),
        pytest.param(
            lambda d: (d / "secrets").write_bytes((d / "secrets").read_bytes()[:-1]),
            "isn't the key",
            id="cut",
        ),
        pytest.param(lambda d: (d / "secrets").write_bytes(b""), "of this version", id="empty"),
    ],
)
def test_store_that_cannot_be_read_is_not_written_over(
    tmp_path: Path, change: object, text: str
) -> None:
    store = LocalSecrets(tmp_path)
    store.put("a", "1")
    assert callable(change)
    change(tmp_path)
    before = (tmp_path / "secrets").read_bytes()

    for call in (store.read, lambda: store.put("b", "2"), lambda: store.remove("a")):
        with pytest.raises(LocalSecretsError, match=text):
            call()

    assert (tmp_path / "secrets").read_bytes() == before


def test_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    store = LocalSecrets(tmp_path)
    store.put("a", "0")
    script = (
        "import sys; from pathlib import Path\n"
        "from fargate_agent.secrets.local_store import LocalSecrets\n"
        "store = LocalSecrets(Path(sys.argv[1]))\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; store.put('a', str(n) * 9999); print(n, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(5):
                last = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split())])
        number = store.read()["a"].value[:1]
        assert number in {str(last)[0], str(last + 1)[0]}

    store.put("a", "end")
    assert {path.name for path in tmp_path.iterdir()} == {"secrets", "secrets.key"}


@pytest.mark.parametrize(
    ("reference", "names", "told"),
    [
        (
            f"{ARN}prod/db-AbC1eF:user::",
            [f"{ARN}prod/db-AbC1eF", "prod/db-AbC1eF", "prod/db"],
            "prod/db",
        ),
        (f"{ARN}my-secret", [f"{ARN}my-secret", "my-secret", "my"], "my-secret"),
        (f"{ARN}my-abc123", [f"{ARN}my-abc123", "my-abc123", "my"], "my"),
        (f"{ARN}db", [f"{ARN}db", "db"], "db"),
        ("secretsmanager:prod/db", ["prod/db"], "prod/db"),
        ("db", ["db", "/db"], "db"),
        ("/app/db", ["/app/db", "app/db"], "/app/db"),
        ("/app/db:3", ["/app/db", "app/db"], "/app/db"),
        (f"{PARAMETER}app/db", [f"{PARAMETER}app/db", "/app/db", "app/db"], "/app/db"),
        (f"{PARAMETER}db:label", [f"{PARAMETER}db", "/db", "db"], "/db"),
    ],
)
def test_reference_means_the_first_name_that_is_there(
    reference: str, names: list[str], told: str
) -> None:
    parsed = parse_reference(reference, REGION)

    assert list(candidates(parsed)) == names
    assert name_to_set(parsed) == told


def source(tmp_path: Path, **buckets: Path) -> LocalSource:
    return LocalSource(LocalSecrets(tmp_path / "state"), buckets, REGION)


@pytest.fixture
def kept(tmp_path: Path) -> None:
    store = LocalSecrets(tmp_path / "state")
    store.put("prod/db", '{"user": "old"}')
    store.put("prod/db", '{"user": "new", "port": 5432}')
    store.put("/app/key", "parameter")
    store.put("db", "geheim")
    store.put("json", '{"key": "geheim"}')


@pytest.mark.usefixtures("kept")
async def test_values_are_those_of_the_names(tmp_path: Path) -> None:
    wanted = {
        f"{ARN}prod/db-AbC1eF": '{"user": "new", "port": 5432}',
        f"{ARN}prod/db-AbC1eF:user::": "new",
        f"{ARN}prod/db-AbC1eF:port:AWSCURRENT:": "5432",
        f"{ARN}prod/db-AbC1eF:user:AWSPREVIOUS:": "old",
        f"{ARN}prod/db-AbC1eF:user::0a1b": "new",
        "app/key": "parameter",
        f"{PARAMETER}app/key": "parameter",
    }

    assert await source(tmp_path).fetch(TASK, wanted.keys()) == wanted
    assert await source(tmp_path).fetch(TASK, []) == {}


@pytest.mark.parametrize(
    ("references", "text"),
    [
        pytest.param(
            [f"{ARN}prod/gone-AbC1eF:user::"],
            "the secret prod/gone has no value on this machine, which does without AWS: "
            "fargate secrets set prod/gone",
            id="one",
        ),
        pytest.param(
            ["/lost", f"{ARN}gone-AbC1eF:a::", f"{ARN}gone-AbC1eF:b::", "db"],
            "secrets /lost, gone have no value on this machine, which does without AWS: "
            "set each with fargate secrets set NAME",
            id="several",
        ),
        pytest.param(
            ["db", f"{ARN}db-AbC1eF::AWSPREVIOUS:"],
            "the secret db has no previous value here (AWSPREVIOUS)",
            id="previous",
        ),
        pytest.param(
            [f"{ARN}db-AbC1eF:user::"],
            "secret db: the secret is not a JSON object, so it has no key user",
            id="no object",
        ),
        pytest.param(
            [f"{ARN}json-secret:user::"],
            "secret json: retrieved secret from Secrets Manager did not contain json key user",
            id="key of a value that was found by another name",
        ),
        pytest.param(
            [f"{ARN}json-AbC1eF:user::"],
            "secret json: retrieved secret from Secrets Manager did not contain json key user",
            id="key",
        ),
    ],
)
@pytest.mark.usefixtures("kept")
async def test_value_that_is_not_there_is_named_with_the_way_to_set_it(
    tmp_path: Path, references: list[str], text: str
) -> None:
    with pytest.raises(ResourceInitializationError) as error:
        await source(tmp_path).fetch(TASK, references)

    assert error.value.detail == f"unable to pull secrets or registry auth: {text}"


async def test_environment_files_come_from_the_directory_of_the_bucket(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "app").mkdir(parents=True)
    (bucket / "app" / "1.env").write_text("A=1\n")
    arn = "arn:aws:s3:::bucket/app/1.env"

    assert await source(tmp_path, bucket=bucket).fetch_files(TASK, [arn]) == {arn: {"A": "1"}}


async def test_directory_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    module = "fargate_agent.secrets.local_source"
    monkeypatch.setattr(f"{module}.READ_DEADLINE_S", 0.1)
    monkeypatch.setattr(f"{module}.read_object", lambda *_: answer.wait())
    try:
        with pytest.raises(ResourceInitializationError, match=r"can't be read within 0\.1 s"):
            await source(tmp_path).fetch_files(TASK, ["arn:aws:s3:::bucket/1.env"])
    finally:
        answer.set()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        pytest.param("gone.env", "No such file or directory", id="gone"),
        pytest.param("../outside", "is no path below", id="dots"),
        pytest.param("app/../../outside", "is no path below", id="dots within"),
        pytest.param("app//1.env", "is no path below", id="empty part"),
        pytest.param("/etc/passwd", "is no path below", id="absolute"),
        pytest.param("app/", "is no path below", id="directory by its slash"),
        pytest.param("app", "is no regular file", id="directory"),
        pytest.param("link.env", "symbolic links are not followed", id="link"),
        pytest.param("away/outside", "symbolic links are not followed", id="link to a directory"),
        pytest.param("pipe", "is no regular file", id="pipe"),
        pytest.param("large", "is larger than 1048576 bytes", id="large"),
        pytest.param("binary", "line 1 is not UTF-8", id="binary"),
        pytest.param("a\0b", "is no object of S3", id="NUL"),
        pytest.param("\ud800", "is no object of S3", id="half a character"),
    ],
)
async def test_what_is_no_file_below_the_directory_is_refused(
    tmp_path: Path, key: str, text: str
) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "app").mkdir(parents=True)
    (tmp_path / "outside").write_text("A=geheim")
    (bucket / "link.env").symlink_to(tmp_path / "outside")
    (bucket / "away").symlink_to(tmp_path)
    os.mkfifo(bucket / "pipe")
    (bucket / "large").write_bytes(b"#" * (1024 * 1024 + 1))
    (bucket / "binary").write_bytes(b"A=\xff")
    arn = f"arn:aws:s3:::bucket/{key}"

    with pytest.raises(ResourceInitializationError) as error:
        await source(tmp_path, bucket=bucket).fetch_files(TASK, [arn])

    assert error.value.detail.startswith("failed to download env files: ")
    assert text in error.value.detail
    assert "geheim" not in error.value.detail


async def test_bucket_that_nothing_stands_for_is_named_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ResourceInitializationError) as error:
        await source(tmp_path).fetch_files(TASK, ["arn:aws:s3:::bucket/1.env"])

    assert error.value.detail == (
        "failed to download env files: nothing stands for the bucket bucket on this machine, which "
        "does without AWS: name its directory in the agent's setting local_buckets, e.g. "
        'local_buckets = { "bucket" = "/srv/bucket" } (arn:aws:s3:::bucket/1.env)'
    )
