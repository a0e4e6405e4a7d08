"""The calls of EC2 about VPCs, what is in them, and where a task runs; its query protocol.

Codes of errors are those of the EC2 API reference. Their texts are unverified, but for those of
`DryRunOperation` and `InvalidAction`, which clients know.
"""

from fargate_agent.controlplane.ec2.answers import CONTENT_TYPE, answer_query, render_refusal
from fargate_agent.controlplane.ec2.query import FORM_CONTENT_TYPE, parse_action

__all__ = ["CONTENT_TYPE", "FORM_CONTENT_TYPE", "answer_query", "parse_action", "render_refusal"]
