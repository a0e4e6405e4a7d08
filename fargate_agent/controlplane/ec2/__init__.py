"""The calls of EC2 that tools make to see where a task runs; its query protocol.

Only what describes the VPC and its ENIs is here, and nothing of it can be changed.

Codes of errors are those of the EC2 API reference. Their texts are unverified, but for those of
`DryRunOperation` and `InvalidAction`, which clients know.
"""

from fargate_agent.controlplane.ec2.answers import CONTENT_TYPE, answer_query, render_refusal
from fargate_agent.controlplane.ec2.query import FORM_CONTENT_TYPE, parse_action

__all__ = ["CONTENT_TYPE", "FORM_CONTENT_TYPE", "answer_query", "parse_action", "render_refusal"]
