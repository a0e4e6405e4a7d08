"""The tables: as the model says after every migration, with what an earlier version has left."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text
from sqlalchemy.engine import make_url

from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import (
    Base,
    Cluster,
    ContainerInstance,
    Eni,
    EniGroup,
    Task,
)
from fargate_agent.controlplane.state.schema import NEWEST
from fargate_agent.controlplane.state.store import open_store
from tests.fixtures.postgres import with_database

FIRST_VERSION = """
CREATE TABLE clusters (name VARCHAR NOT NULL, status VARCHAR NOT NULL, document JSON NOT NULL,
    PRIMARY KEY (name));
CREATE TABLE task_definitions (family VARCHAR NOT NULL, revision INTEGER NOT NULL,
    status VARCHAR NOT NULL, document JSON NOT NULL, tags JSON NOT NULL,
    PRIMARY KEY (family, revision));
CREATE TABLE client_tokens (cluster VARCHAR NOT NULL, token VARCHAR NOT NULL,
    request_digest VARCHAR NOT NULL, task_ids JSON NOT NULL, created_at FLOAT NOT NULL,
    PRIMARY KEY (cluster, token), FOREIGN KEY(cluster) REFERENCES clusters (name));
CREATE TABLE container_instances (id VARCHAR NOT NULL, cluster VARCHAR NOT NULL,
    access_key_id VARCHAR NOT NULL, status VARCHAR NOT NULL, cpu_units INTEGER,
    memory_mib INTEGER, document JSON NOT NULL, registered_at FLOAT NOT NULL,
    timeline INTEGER NOT NULL, PRIMARY KEY (id),
    FOREIGN KEY(cluster) REFERENCES clusters (name));
CREATE TABLE tasks (id VARCHAR NOT NULL, cluster VARCHAR NOT NULL, family VARCHAR NOT NULL,
    revision INTEGER NOT NULL, instance_id VARCHAR NOT NULL, delivery VARCHAR NOT NULL,
    desired_status VARCHAR NOT NULL, last_status VARCHAR NOT NULL, version INTEGER NOT NULL,
    stop_code VARCHAR, stopped_reason VARCHAR, cpu_units INTEGER NOT NULL,
    memory_mib INTEGER NOT NULL, "group" VARCHAR NOT NULL, started_by VARCHAR,
    document JSON NOT NULL, containers JSON NOT NULL, essential JSON NOT NULL,
    message JSON NOT NULL, created_at FLOAT NOT NULL, connectivity_at FLOAT,
    pull_started_at FLOAT, pull_stopped_at FLOAT, started_at FLOAT, stopping_at FLOAT,
    execution_stopped_at FLOAT, stopped_at FLOAT, PRIMARY KEY (id),
    FOREIGN KEY(family, revision) REFERENCES task_definitions (family, revision),
    FOREIGN KEY(cluster) REFERENCES clusters (name),
    FOREIGN KEY(instance_id) REFERENCES container_instances (id));
CREATE INDEX ix_tasks_cluster ON tasks (cluster);
CREATE INDEX ix_tasks_instance_id ON tasks (instance_id);
CREATE INDEX ix_tasks_last_status ON tasks (last_status);
CREATE TABLE enis (id VARCHAR NOT NULL, attachment_id VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL, subnet_id VARCHAR NOT NULL, address VARCHAR NOT NULL,
    mac VARCHAR NOT NULL, private_dns_name VARCHAR NOT NULL, status VARCHAR NOT NULL,
    in_use BOOLEAN NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY (id),
    UNIQUE (attachment_id), UNIQUE (task_id),
    FOREIGN KEY(task_id) REFERENCES tasks (id) ON DELETE CASCADE);
CREATE UNIQUE INDEX enis_address_in_use ON enis (subnet_id, address) WHERE in_use;
INSERT INTO clusters VALUES ('default', 'ACTIVE', '{"tags": [{"key": "team", "value": "a"}]}');
INSERT INTO task_definitions VALUES ('web', 1, 'ACTIVE', '{}', '[]');
INSERT INTO container_instances VALUES
    ('i1', 'default', 'AKIA', 'ACTIVE', 4096, 8192, '{}', 1.0, 1700000000000);
INSERT INTO tasks (id, cluster, family, revision, instance_id, delivery, desired_status,
    last_status, version, cpu_units, memory_mib, "group", document, containers, essential,
    message, created_at) VALUES
    ('t1', 'default', 'web', 1, 'i1', 'ACKED', 'RUNNING', 'RUNNING', 4, 256, 512, 'family:web',
     '{"tags": [{"key": "k", "value": "v"}], "ephemeralStorage": {"sizeInGiB": 30}}', '[]', '[]',
     '{}', 1.0),
    ('t2', 'default', 'web', 1, 'i1', 'ACKED', 'STOPPED', 'STOPPED', 9, 256, 512, 'family:web',
     '{}', '[]', '[]', '{}', 1.0);
INSERT INTO enis VALUES
    ('eni-1', 'a1', 't1', 'subnet-default', '10.0.0.4', '02::1', 'ip', 'ATTACHED', 1, 1.0),
    ('eni-2', 'a2', 't2', 'subnet-default', '10.0.0.5', '02::2', 'ip', 'DELETED', 0, 1.0);
PRAGMA user_version = 1;
"""
"""What version 0.1.0 has written."""


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A database of the first version, which was always SQLite."""
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_VERSION)
    connection.close()
    return path


@pytest.mark.root
async def test_migrations_end_with_what_the_model_says(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()):
        found = await with_database(bare_url, differences)

    assert found == []


@pytest.mark.root
async def test_opening_again_changes_nothing(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store, store.write() as session:
        session.add(Cluster(name="blue", status="ACTIVE", document={}, tags=[]))

    async with open_store(make_url(bare_url), Announcements()) as store, store.read() as session:
        found = await session.get(Cluster, "blue")

    assert found is not None


@pytest.mark.root
async def test_first_version_is_taken_over_with_all_that_it_knew(first_version: Path) -> None:
    url = make_url(f"sqlite:///{first_version}")

    async with open_store(url, Announcements()) as store, store.read() as session:
        cluster = await session.get_one(Cluster, "default")
        instance = await session.get_one(ContainerInstance, "i1")
        running = await session.get_one(Task, "t1")
        stopped = await session.get_one(Task, "t2")

    assert cluster.tags == [{"key": "team", "value": "a"}]
    assert instance.timeline == 1700000000000
    assert (instance.reserved_tasks, instance.reserved_cpu_units) == (1, 256)
    assert (instance.reserved_memory_mib, instance.reserved_storage_gib) == (512, 30)
    assert running.tags == [{"key": "k", "value": "v"}]
    assert "tags" not in running.document
    assert running.eni.address == "10.0.0.4"
    assert running.eni.availability_zone is None
    assert stopped.storage_gib == 20
    assert stopped.connected


def go_back(connection: Connection) -> None:
    """Have tables and rows as the version before networks were tables has left them."""
    for table in (
        "deployment_registries",
        "cloud_map_operations",
        "registered_instances",
        "discoverable_services",
        "namespaces",
        "resource_tags",
        "network_objects",
        "eni_groups",
        "security_group_rules",
        "security_groups",
        "subnets",
        "vpcs",
    ):
        connection.execute(text(f"DROP TABLE {table}"))
    for column in ("vpc_id", "availability_zone", "vlan_id"):
        connection.execute(text(f"ALTER TABLE enis DROP COLUMN {column}"))
    connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))


def write_task(connection: Connection) -> None:
    """Have a task with an ENI, as every version since the second one writes them."""
    connection.execute(
        text(
            "INSERT INTO clusters (name, status, document, tags) VALUES ('c', 'ACTIVE', '{}', '[]')"
        )
    )
    connection.execute(
        text(
            "INSERT INTO task_definitions (family, revision, status, document, tags) "
            "VALUES ('web', 1, 'ACTIVE', '{}', '[]')"
        )
    )
    connection.execute(
        text(
            "INSERT INTO container_instances (id, cluster, access_key_id, status, reserved_tasks, "
            "reserved_cpu_units, reserved_memory_mib, reserved_storage_gib, served, "
            "connected_until, silent, document, tags, registered_at, timeline) "
            "VALUES ('i', 'c', 'AKIA', 'ACTIVE', 1, 0, 0, 0, true, 0, false, '{}', '[]', 0, 0)"
        )
    )
    message = '{"zone": "us-east-1b", "vpcId": "vpc-mine"}'
    connection.execute(
        text(
            "INSERT INTO tasks (id, cluster, family, revision, instance_id, delivery, "
            "desired_status, last_status, version, cpu_units, memory_mib, storage_gib, "
            '"group", settled, tags, health_status, connected, document, containers, essential, '
            "message, created_at) VALUES ('t', 'c', 'web', 1, 'i', 'ACKED', 'RUNNING', 'RUNNING', "
            "1, 0, 0, 0, 'g', false, '[]', 'UNKNOWN', true, '{}', '[]', '[]', :message, 0)"
        ),
        {"message": message},
    )
    connection.execute(
        text(
            "INSERT INTO enis (id, attachment_id, task_id, subnet_id, address, security_groups, "
            "mac, private_dns_name, status, in_use, created_at) VALUES ('eni-1', 'a', 't', "
            "'subnet-b', '10.0.0.4', :groups, '02::1', 'ip', 'ATTACHED', true, 0)"
        ),
        {"groups": '["sg-b", "sg-a"]'},
    )


@pytest.mark.root
async def test_enis_of_the_version_before_say_where_they_are_and_who_is_in_a_group(
    bare_url: str,
) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store, store.write() as session:
        await session.with_connection(go_back)
        await session.with_connection(write_task)

    async with open_store(make_url(bare_url), Announcements()) as store, store.read() as session:
        eni = await session.get_one(Eni, "eni-1")
        groups = sorted(await session.scalars(select(EniGroup.group_id)))
    found = await with_database(bare_url, differences)

    assert (eni.availability_zone, eni.vpc_id) == ("us-east-1b", "vpc-mine")
    assert groups == ["sg-a", "sg-b"]
    assert found == []


def read_version(connection: Connection) -> str | None:
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


@pytest.mark.root
async def test_start_with_the_newest_tables_has_nothing_to_migrate(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()):
        pass

    assert await with_database(bare_url, read_version) == NEWEST


def make_later(connection: Connection) -> None:
    connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))


@pytest.mark.root
async def test_later_version_is_left_alone(bare_url: str) -> None:
    async with open_store(make_url(bare_url), Announcements()) as store, store.write() as session:
        await session.with_connection(make_later)

    with pytest.raises(StartError, match="schema version 9999, this program knows only up to"):
        async with open_store(make_url(bare_url), Announcements()):
            pass
