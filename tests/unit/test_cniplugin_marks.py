"""Marks of attachments, and notes on NICs."""

from fargate_agent.cniplugins.marks import host_end_names, network_prefix, render_mark
from fargate_agent.cniplugins.nics import MAX_ALIAS_BYTES, Note, read_note

LONG = "x" * 300


def test_a_mark_says_whose_an_interface_is() -> None:
    mark = render_mark("ecs-bridge", "tasks", "one", "eth0")

    assert mark == "fargate-cni:ecs-bridge:tasks:one:eth0"
    assert mark.startswith(network_prefix("ecs-bridge", "tasks"))
    assert not mark.startswith(network_prefix("ecs-bridge", "task"))


def test_long_names_stay_apart_and_find_room_in_an_alias() -> None:
    marks = {render_mark("ecs-bridge", LONG, f"{LONG}{at}", "eth0") for at in range(3)}

    assert len(marks) == 3
    assert max(map(len, marks)) < 160
    assert all(one.startswith(network_prefix("ecs-bridge", LONG)) for one in marks)


def test_names_of_ends_fit_and_differ() -> None:
    names = list(host_end_names("one")) + list(host_end_names("two"))

    assert len(set(names)) == 20
    assert all(len(name) == 12 and name.startswith("veth") for name in names)


def test_a_note_is_read_as_it_was_written() -> None:
    note = Note(render_mark("ecs-eni", "", "one", "eth0"), "ens5", 9001, "a: friend's")

    assert read_note(note.render()) == note


def test_a_note_cuts_what_has_no_room() -> None:
    rendered = Note(render_mark("ecs-eni", LONG, LONG, "eth0"), "ens5", 9001, "é" * 200).render()

    assert len(rendered.encode()) <= MAX_ALIAS_BYTES
    note = read_note(rendered)
    assert note is not None
    assert (note.name, note.mtu) == ("ens5", 9001)


def test_other_aliases_are_no_notes() -> None:
    for alias in ("", "uplink", "fargate:x:netns:eni", "a:nic:b", "a:nic:b:c:d"):
        assert read_note(alias) is None
