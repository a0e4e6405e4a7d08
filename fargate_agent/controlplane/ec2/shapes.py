"""EC2's own service model, as botocore ships it, cut down to the operations that are here.

The whole of it takes 0.1 s to read and 15 MB to keep. So it is read at the first call, and only
what these operations use is kept.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import ServiceModel

API_VERSION: Final = "2016-11-15"
NAMESPACE: Final = f"http://ec2.amazonaws.com/doc/{API_VERSION}/"

OPERATIONS: Final = (
    "AllocateAddress",
    "AssociateRouteTable",
    "AttachInternetGateway",
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateEgressOnlyInternetGateway",
    "CreateInternetGateway",
    "CreateManagedPrefixList",
    "CreateNatGateway",
    "CreateRoute",
    "CreateRouteTable",
    "CreateSecurityGroup",
    "CreateSubnet",
    "CreateTags",
    "CreateVpc",
    "DeleteEgressOnlyInternetGateway",
    "DeleteInternetGateway",
    "DeleteManagedPrefixList",
    "DeleteNatGateway",
    "DeleteRoute",
    "DeleteRouteTable",
    "DeleteSecurityGroup",
    "DeleteSubnet",
    "DeleteTags",
    "DeleteVpc",
    "DescribeAddresses",
    "DescribeAddressesAttribute",
    "DescribeAvailabilityZones",
    "DescribeEgressOnlyInternetGateways",
    "DescribeInternetGateways",
    "DescribeManagedPrefixLists",
    "DescribeNatGateways",
    "DescribeNetworkAcls",
    "DescribeNetworkInterfaces",
    "DescribePrefixLists",
    "DescribeRouteTables",
    "DescribeSecurityGroupRules",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeTags",
    "DescribeVpcAttribute",
    "DescribeVpcs",
    "DetachInternetGateway",
    "DisassociateRouteTable",
    "GetManagedPrefixListEntries",
    "ModifyManagedPrefixList",
    "ModifyNetworkInterfaceAttribute",
    "ModifySecurityGroupRules",
    "ModifySubnetAttribute",
    "ModifyVpcAttribute",
    "ReleaseAddress",
    "ReplaceRoute",
    "ReplaceRouteTableAssociation",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "UpdateSecurityGroupRuleDescriptionsEgress",
    "UpdateSecurityGroupRuleDescriptionsIngress",
)


@cache
def service_model() -> Any:  # noqa: ANN401 - botocore ships no types
    """Return the model. The first call blocks, for 0.1 s."""
    whole = Loader().load_service_model("ec2", "service-2", API_VERSION)
    operations = {name: whole["operations"][name] for name in OPERATIONS}
    shapes: dict[str, Any] = {}
    wanted = list(_named_shapes(operations))
    while wanted:
        name = wanted.pop()
        if name not in shapes:
            shapes[name] = whole["shapes"][name]
            wanted.extend(_named_shapes(shapes[name]))
    return ServiceModel(
        {"metadata": whole["metadata"], "operations": operations, "shapes": shapes}, "ec2"
    )


def query_name(name: str, shape: Any) -> str:  # noqa: ANN401 - botocore ships no types
    """Return how the member `name` of a request is called in a query.

    Source: botocore, serialize.py, `EC2Serializer`.
    """
    if "queryName" in shape.serialization:
        return str(shape.serialization["queryName"])
    written = str(shape.serialization.get("name", name))
    return written[:1].upper() + written[1:]


def _named_shapes(described: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if isinstance(described, list):
        for item in described:
            yield from _named_shapes(item)
    elif isinstance(described, dict):
        for name, value in described.items():
            if name == "shape" and isinstance(value, str):
                yield value
            else:
                yield from _named_shapes(value)
