"""What RegisterTaskDefinition refuses of volumes and of the paths where they are mounted."""

from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from tests.unit.test_rules_texts import ACCOUNT, app, definition, linux, volume


@pytest.mark.parametrize(
    ("change", "part"),
    [
        *(
            pytest.param(
                app(mountPoints=[{"sourceVolume": "v", "containerPath": path}])
                | {"volumes": [{"name": "v"}]},
                f"setting for container 'app': containerPath '{path}' {fault}",
                id=f"mounted at {path}",
            )
            for path, fault in {
                "data": "is not absolute",
                "/data/../etc": "has a part '..'",
                "/": "is the root directory",
                "/./": "is the root directory",
            }.items()
        ),
        pytest.param(
            app(
                mountPoints=[
                    {"sourceVolume": "v", "containerPath": "/data"},
                    {"sourceVolume": "v", "containerPath": "/data/"},
                ]
            )
            | {"volumes": [{"name": "v"}]},
            "two mounts at /data.",
            id="two mounts at one path",
        ),
        pytest.param(
            app(
                mountPoints=[{"sourceVolume": "v", "containerPath": "/data"}],
                linuxParameters={"tmpfs": [{"containerPath": "//data", "size": 1}]},
            )
            | {"volumes": [{"name": "v"}]},
            "two mounts at /data.",
            id="tmpfs over a volume",
        ),
        pytest.param(
            linux(tmpfs=[{"containerPath": "/t/..", "size": 1}]), "Invalid 'tmpfs'", id="tmpfs at /"
        ),
        pytest.param(
            {"volumes": [{"name": "../v"}]}, "Volume name should be", id="volume that leads up"
        ),
    ],
)
def test_volume_that_can_not_be_is_refused(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ApiError) as error:
        check_definition(Draft(definition(**change), ACCOUNT))

    assert part in error.value.message


@pytest.mark.parametrize("path", ["code", "/srv/../etc"])
def test_source_path_that_leads_elsewhere_is_refused(path: str) -> None:
    relaxed = definition(**volume(host={"sourcePath": path}), requiresCompatibilities=["EC2"])

    with pytest.raises(ApiError, match="Volume 'v': sourcePath"):
        check_definition(Draft(relaxed, ACCOUNT))
