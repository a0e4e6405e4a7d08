"""What RegisterTaskDefinition refuses, in AWS's order and words, and what it adds by itself. Pure.

`definition` has the order. A text that was measured on the ECS API stands here as AWS writes it.
One that is only likely, or ours, is marked `unverified`.
"""
