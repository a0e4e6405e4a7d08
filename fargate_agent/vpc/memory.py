"""What an agent knows of private zones, over its restarts."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fargate_agent.files import replace_file
from fargate_agent.plan.names import RecordPlan, ZonePlan

log = logging.getLogger(__name__)

FILE: Final = "private-zones.json"
"""Below the state directory."""


def read_zones(file: Path) -> tuple[ZonePlan, ...]:
    """Return the zones in a file; none if it isn't there or makes no sense. Blocks."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return tuple(
            ZonePlan(
                vpc_id=str(zone["vpc_id"]),
                name=str(zone["name"]),
                negative_ttl_s=int(zone["negative_ttl_s"]),
                records=tuple(
                    RecordPlan(**{**one, "values": tuple(map(str, one["values"]))})
                    for one in zone["records"]
                ),
            )
            for zone in document["zones"]
        )
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error(
            "%s can't be read, so names of services aren't found until the control plane sends "
            "them: %s",
            file.name,
            error,
        )
        return ()


def write_zones(file: Path, zones: Iterable[ZonePlan]) -> None:
    """Write zones down for the next agent. Blocks.

    Raises:
        OSError: the file can't be written; what it held is still there.
    """
    text = json.dumps({"zones": [asdict(zone) for zone in zones]})
    replace_file(file, f"{text}\n", durable=False)
