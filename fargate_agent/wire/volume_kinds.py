"""The kinds of volumes: in plans, and of the drivers."""

from enum import StrEnum


class VolumeKind(StrEnum):
    """Where the files of a volume are."""

    SCRATCH = "scratch"
    """In the ephemeral volume of the task; gone with it."""
    EFS = "efs"
    """On a server of NFS, or in a directory of this machine that stands for one."""
    EBS = "ebs"
    """In a file system of the volume's own, made for one task."""
    PERSISTENT = "persistent"
    """In a directory of the agent that outlives the task."""
    HOST = "host"
    """In a directory of this machine that the definition names."""
