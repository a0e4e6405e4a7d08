import pytest

from fargate_agent.secrets.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:app/db-AbCdEf"
PARAMETER = "arn:aws:ssm:eu-west-1:123456789012:parameter/app/db"


def secret(**parts: str) -> SecretReference:
    return SecretReference(region="eu-west-1", arn=SECRET, **parts)


@pytest.mark.parametrize(
    ("value_from", "reference"),
    [
        pytest.param(SECRET, secret(), id="secret"),
        pytest.param(f"{SECRET}:user::", secret(json_key="user"), id="key"),
        pytest.param(f"{SECRET}::AWSPREVIOUS:", secret(version_stage="AWSPREVIOUS"), id="stage"),
        pytest.param(f"{SECRET}:::0a1b", secret(version_id="0a1b"), id="version"),
        pytest.param(
            f"{SECRET}:user::0a1b", secret(json_key="user", version_id="0a1b"), id="key of version"
        ),
        pytest.param(
            f"{SECRET}:user:AWSCURRENT:0a1b",
            secret(json_key="user", version_stage="AWSCURRENT", version_id="0a1b"),
            id="stage and version",
        ),
        *(
            pytest.param(f"{SECRET}{':' * count}", secret(), id=f"{count} colons")
            for count in (1, 2, 3)
        ),
        pytest.param(
            "/app/db", ParameterReference(region="us-east-1", name="/app/db"), id="parameter"
        ),
        pytest.param(
            "secretsmanager:app/db", SecretReference(region="us-east-1", arn="app/db"), id="by name"
        ),
        pytest.param("db", ParameterReference(region="us-east-1", name="db"), id="bare name"),
        pytest.param(
            "db:user::", ParameterReference(region="us-east-1", name="db:user::"), id="not a secret"
        ),
        pytest.param(
            PARAMETER, ParameterReference(region="eu-west-1", name=PARAMETER), id="parameter ARN"
        ),
    ],
)
def test_reference_is_read(
    value_from: str, reference: SecretReference | ParameterReference
) -> None:
    assert parse_reference(value_from, "us-east-1") == reference


@pytest.mark.parametrize(
    ("value_from", "text"),
    [
        pytest.param(f"{SECRET}:user", "unexpected ARN format with parameters", id="colons"),
        pytest.param(f"{SECRET}::::", "unexpected ARN format with parameters", id="more colons"),
        pytest.param("arn:aws:s3:::bucket/key", "is no secret and no parameter", id="service"),
        pytest.param("arn:", "is no secret and no parameter", id="cut"),
        *(
            pytest.param(
                f"arn:aws:{service}:evil.test/:1:{kind}",
                "is no secret and no parameter",
                id=f"host for a region of {service}",
            )
            for service, kind in (("ssm", "parameter/a"), ("secretsmanager", "secret:a"))
        ),
    ],
)
def test_wrong_reference_is_refused(value_from: str, text: str) -> None:
    with pytest.raises(InvalidReferenceError, match=text):
        parse_reference(value_from, "us-east-1")
