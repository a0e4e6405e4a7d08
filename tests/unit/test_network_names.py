from pathlib import Path

from fargate_agent.findings import Finding, Findings
from fargate_agent.network.names import (
    FIRST_RULE,
    RULES,
    bridge_prefix,
    eni_alias,
    first_rule_priority,
    host_end_name,
    host_end_prefix,
    metadata_end_name,
    metadata_netns_name,
    netns_alias,
    ours_prefix,
    routing_table,
)

MAX_IFNAME_CHARS = 15


def test_interface_names_fit_and_tell_their_agent() -> None:
    for number in (0, 2**32 - 1):
        end = host_end_name("one", number)

        assert len(end) == MAX_IFNAME_CHARS
        assert end.startswith(host_end_prefix("one"))
        assert end.startswith(ours_prefix("one"))


def test_names_of_two_agents_never_meet() -> None:
    assert host_end_name("one", 1) != host_end_name("two", 1)
    assert bridge_prefix("one") != bridge_prefix("two")
    assert metadata_netns_name("one") != metadata_netns_name("two")


def test_routing_table_and_rules_of_an_agent_are_its_own() -> None:
    instances = [str(number) for number in range(100)]
    tables = {routing_table(one) for one in instances}
    first = [first_rule_priority(one) for one in instances]

    assert len(tables) == 100
    assert all(2**31 < table < 2**32 for table in tables)
    assert all((one - FIRST_RULE) % RULES == 0 for one in first)
    assert first_rule_priority("00001295") == FIRST_RULE + 4095 * RULES  # the last there can be
    assert FIRST_RULE + 4095 * RULES + RULES - 1 < 32_766
    assert len(set(first)) > 95  # of 4,096


def test_name_of_a_tasks_metadata_interface_fits() -> None:
    assert len(metadata_end_name(Path("/proc/self/ns/net"))) <= MAX_IFNAME_CHARS


def test_alias_of_an_eni_tells_its_network_namespace() -> None:
    alias = eni_alias("one", Path("/run/netns/fargate-1"), "eni-1")

    assert alias.startswith(f"{netns_alias('one', 'fargate-1')}:")
    assert not alias.startswith(f"{netns_alias('one', 'fargate-12')}:")


def test_findings_keep_each_thing_once_in_order() -> None:
    findings = Findings()

    for what in ("no seccomp", "no nftables", "no seccomp"):
        findings.note(what, "tasks go on without")

    assert list(findings) == [
        Finding(what="no seccomp", effect="tasks go on without"),
        Finding(what="no nftables", effect="tasks go on without"),
    ]
