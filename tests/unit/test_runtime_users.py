"""Users and groups, as Docker understands them."""

import pytest

from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.runtime.users import ContainerUser, UserFiles, resolve_user

FILES = UserFiles(
    passwd=(
        "root:x:0:0:root:/root:/bin/sh\n"
        "# a comment\n"
        "broken line\n"
        "nologin:x:notanumber:0::/:/bin/false\n"
        "app:x:1000:1000::/app:/bin/sh\n"
        "12345:x:7:8::/:/bin/sh\n"
    ),
    group=(
        "root:x:0:root\n"
        "wheel:x:10:root,app\n"
        "app:x:1000:\n"
        "staff:x:50:someone,app\n"
        "staff2:x:50:app\n"
        "777:x:9:\n"
    ),
)


def user(uid: int, gid: int, *additional: int) -> ContainerUser:
    return ContainerUser(uid=uid, gid=gid, additional_gids=additional)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", user(0, 0, 0, 10), id="none is root with its groups"),
        pytest.param("root", user(0, 0, 0, 10), id="root"),
        pytest.param("0", user(0, 0, 0, 10), id="number of a known user"),
        pytest.param("app", user(1000, 1000, 1000, 10, 50), id="name"),
        pytest.param("1000", user(1000, 1000, 1000, 10, 50), id="its number"),
        pytest.param("app:", user(1000, 1000, 1000, 10, 50), id="empty group"),
        pytest.param("app:staff", user(1000, 50, 50), id="group by name"),
        pytest.param("app:50", user(1000, 50, 50), id="group by number"),
        pytest.param("app:4242", user(1000, 4242, 4242), id="unknown group number"),
        pytest.param("4242", user(4242, 0, 0), id="unknown number"),
        pytest.param("4242:4343", user(4242, 4343, 4343), id="unknown numbers"),
        pytest.param(":staff", user(0, 50, 50), id="only a group"),
        pytest.param("12345", user(7, 8, 8), id="a name that looks like a number"),
        pytest.param("app:777", user(1000, 9, 9), id="a group that looks like a number"),
    ],
)
def test_user_stands_for(text: str, expected: ContainerUser) -> None:
    assert resolve_user(text, FILES) == expected


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("nosuch", "unable to find user nosuch: no matching entries in passwd file"),
        ("nologin", "unable to find user nologin: no matching entries in passwd file"),
        ("app:nosuch", "unable to find group nosuch: no matching entries in group file"),
        ("-1", "unable to find user -1: no matching entries in passwd file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("1:2147483648", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown_user_is_refused(text: str, detail: str) -> None:
    with pytest.raises(CannotCreateContainerError) as caught:
        resolve_user(text, FILES)

    assert caught.value.detail == detail


def test_an_image_without_user_files_has_root() -> None:
    assert resolve_user("", UserFiles()) == user(0, 0, 0)
