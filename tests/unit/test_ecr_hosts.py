"""Which hosts are private registries of ECR."""

from typing import Final

import pytest

from fargate_agent.image.registry.ecr import EcrHost, parse_ecr_host

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
HOST: Final = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (HOST, EcrHost(account=ACCOUNT, region=REGION)),
        (HOST.upper(), EcrHost(account=ACCOUNT, region=REGION)),
        (
            f"{ACCOUNT}.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
            EcrHost(account=ACCOUNT, region="us-gov-west-1"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn",
            EcrHost(account=ACCOUNT, region="cn-north-1"),
        ),
        (
            f"{ACCOUNT}.dkr-ecr.eu-west-1.on.aws",
            EcrHost(account=ACCOUNT, region="eu-west-1"),
        ),
        (
            f"{ACCOUNT}.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            EcrHost(account=ACCOUNT, region="eusc-de-east-1"),
        ),
        ("public.ecr.aws", None),
        ("docker.io", None),
        (f"{HOST}:443", None),
        (f"{HOST}.evil.test", None),
        (f"x.{HOST}", None),
    ],
)
def test_only_private_registries_of_ecr_are_asked_for_a_password(
    host: str, found: EcrHost | None
) -> None:
    assert parse_ecr_host(host) == found
