"""What the reasons of tasks and containers mean. Pure.

Source: Amazon ECS developer guide, "Amazon ECS stopped task error messages", and what our own agent
reports.
"""

import re
from typing import Final

from fargate_agent.cli.why.explanation import AGENT_LOG, TASK_LOG, Explanation

_REASONS: Final[tuple[tuple[str, Explanation], ...]] = (
    (
        r"not supported here|logging mode not supported",
        Explanation(
            "The task definition asks for what this agent can't do; the reason names it.",
            "Leave that out of the task definition.",
        ),
    ),
    (
        r"does not contain descriptor matching platform|no match for platform",
        Explanation(
            "The image was not built for this machine's processor.",
            "Build it for this platform, or set runtimePlatform.cpuArchitecture to the image's.",
        ),
    ),
    (
        r"the task is for linux/\S+, and this machine runs",
        Explanation(
            "The task is for another processor than this machine has.",
            "Set runtimePlatform.cpuArchitecture to this machine's, and take an image for it.",
        ),
    ),
    (
        r"this machine has no AWS keys",
        Explanation(
            "The control plane has no AWS keys to assume the task's roles with.",
            "Set aws_credentials_file in the control plane's settings, or aws = local where there"
            " is no AWS; for a local stack without STS assume_roles = false and aws_endpoint_url.",
        ),
    ),
    (
        r"has sent no credentials of role",
        Explanation(
            "The agent waited for credentials of a role, which the control plane makes.",
            "See the log of the control plane: it says why it has none.",
        ),
    ),
    (
        r"NoCredentialProviders",
        Explanation(
            "There are no AWS keys for the log driver: the task definition has no execution role.",
            "Set executionRoleArn in the task definition, and aws_credentials_file in the control"
            " plane's settings. Or use another log driver than awslogs.",
        ),
    ),
    (
        r"no space left on device",
        Explanation(
            "The disk of the machine is full.",
            "Make room (fargate images prune), or give the state directory more.",
        ),
    ),
    (
        r"CannotPull.*through the proxy",
        Explanation(
            "The registry is asked through a proxy, which refuses, or can't be reached from the"
            " task's subnet. The reason says which proxy and why.",
            "Check the agent's settings registry_proxy and registry_no_proxy; docs/registries.md.",
        ),
    ),
    (
        r"CannotPull.*\b(401|403)\b|CannotPull.*(unauthorized|authorization failed|denied)",
        Explanation(
            "The registry doesn't let the task have the image, or there is no such image.",
            "Check the name of the image and the credentials for the registry.",
        ),
    ),
    (
        r"CannotPull.*(not found|\b404\b|manifest unknown)",
        Explanation(
            "There is no such image in the registry.",
            "Check name and tag in the task definition, or load it: fargate images load FILE.",
        ),
    ),
    (
        r"CannotPull.*(insecure registry|server gave HTTP)",
        Explanation(
            "The registry has no TLS. The agent uses such a registry only if it is listed.",
            "List it in the agent's setting insecure_registries, as the reason names it, and"
            " restart the agent.",
        ),
    ),
    (
        r"CannotPull.*signed by unknown authority",
        Explanation(
            "The certificate of the registry is signed by an authority that this machine doesn't"
            " trust.",
            "If it is your own: name a file with its certificate in the agent's settings, as the"
            " ca_file of the registry; docs/registries.md has an example.",
        ),
    ),
    (
        r"CannotPull.*(x509|certificate|tls:)",
        Explanation(
            "No TLS connection to the registry can be made; the reason says why.",
            "Check the registry's certificate: its names, its dates; and this machine's clock.",
        ),
    ),
    (
        r"CannotPull.*(\b429\b|toomanyrequests)",
        Explanation(
            "The registry limits how often it is asked.",
            "Wait as long as it says, log in with fargate login REGISTRY, or use a mirror.",
        ),
    ),
    (
        r"CannotPull.*(no such host|time-?out|timed out|refused|reachable|deadline|Cannot connect)",
        Explanation(
            "The registry can't be reached through the task's network interface.",
            "Check DNS and the way out of the task's subnet, or load the image:"
            " fargate images load FILE.",
        ),
    ),
    (
        r"CannotPull",
        Explanation(
            "An image couldn't be pulled; the reason says how far it got.",
            "Check image and registry, or load the image: fargate images load FILE.",
        ),
    ),
    (
        r"address \S+ is already in use",
        Explanation(
            "Another machine on the subnet has the task's address.",
            "Find that machine by the MAC address in the reason, or give the VPC another range.",
        ),
    ),
    (
        r"exec format error",
        Explanation(
            "The program was built for another processor, or is a script without #! line.",
            "Build the image for this platform, or name the script's interpreter in entryPoint.",
        ),
    ),
    (
        r"unable to set the kernel parameter",
        Explanation(
            "The kernel doesn't take what systemControls asks for; the reason names it.",
            "Correct namespace and value, or leave it out of the task definition.",
        ),
    ),
    (
        r"executable file (?:`.*` )?not found|exec.*(no such file|is a dir)|no such file.*exec",
        Explanation(
            "The program that entryPoint or command names isn't in the image.",
            "Check entryPoint and command (each word is an item of the list), and $PATH.",
        ),
    ),
    (
        r"CannotStart.*permission denied",
        Explanation(
            "The program in the image may not be executed by the container's user.",
            "Set its execute bit in the image, or the user of the container.",
        ),
    ),
    (
        r"fargate secrets set",
        Explanation(
            "A secret of the task definition has no value on this machine, which does without AWS.",
            "Set it, as the reason says: fargate secrets set NAME. Or let the agent ask AWS: its"
            " setting aws.",
        ),
    ),
    (
        r"nothing stands for the bucket",
        Explanation(
            "An environment file is in a bucket that nothing stands for on this machine, which does"
            " without AWS.",
            "Name a directory for it in the agent's setting local_buckets, and restart the agent.",
        ),
    ),
    (
        r"failed to download env files",
        Explanation(
            "An environment file couldn't be had; the reason says why.",
            "Check environmentFiles of the task definition, what the execution role may read, and"
            " the network; without AWS the directory that stands for the bucket.",
        ),
    ),
    (
        r"unable to make variables of a secret",
        Explanation(
            "A secret whose keys are to be variables isn't a JSON object of such keys.",
            "See the secret that the reason names, or leave out the label fargate.secret-keys.",
        ),
    ),
    (
        r"unable to mount a tmpfs for the files",
        Explanation(
            "This machine can't mount a tmpfs for the files that labels of a container ask for.",
            "Let the agent mount file systems (CAP_SYS_ADMIN), or leave out the labels"
            " fargate.secret-file and fargate.text-file.",
        ),
    ),
    (
        r"is not a JSON object|did not contain json key",
        Explanation(
            "A secret doesn't have the key that valueFrom of the task definition names.",
            "Set the secret to a JSON object that has it, or correct valueFrom.",
        ),
    ),
    (
        r"secrets|ecr registry auth|execution resource retrieval",
        Explanation(
            "A secret or the credentials for a registry couldn't be had.",
            "Check valueFrom of the secrets, the execution role, and the network.",
        ),
    ),
    (
        r"TaskDependencyError|container ordering dependency",
        Explanation(
            "A container waited for another (dependsOn) that never got as it should.",
            "See that container's exit code, health check and startTimeout.",
            TASK_LOG,
        ),
    ),
    (
        r"[Tt]imeout waiting for|ContainerRuntimeTimeoutError",
        Explanation(
            "A step of the start took too long.",
            "See fargate doctor and the load of the machine, and run the task again.",
        ),
    ),
    (
        r"Capacity is unavailable|RESOURCE:",
        Explanation(
            "No agent had room for the task.",
            "Stop other tasks, ask for less cpu and memory, or add a machine.",
        ),
    ),
    (
        r"unable to assume the role.*local_roles names profile",
        Explanation(
            "The keys that stand for a role of the task on this machine can't be read.",
            "Correct local_roles of the control plane, or the credentials file: see the reason.",
        ),
    ),
    (
        r"unable to assume the role.*(InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken)",
        Explanation(
            "STS doesn't take the machine's own keys, with which roles are assumed.",
            "Correct them: they are in aws_credentials_file of the control plane, or in its"
            " environment.",
        ),
    ),
    (
        r"unable to assume the role",
        Explanation(
            "A role of the task can't be assumed.",
            "Check the role's trust policy.",
        ),
    ),
    (
        r"restarted|rebooted|reboot",
        Explanation(
            "The machine was restarted while the task ran; tasks don't survive that.",
            "Run the task again; a service does so by itself.",
        ),
    ),
    (
        r"InternalError|UnrecogniedTaskError",
        Explanation(
            "The agent failed, not the task.",
            "See fargate doctor.",
            AGENT_LOG,
        ),
    ),
    (
        r"ResourceInitializationError",
        Explanation(
            "Network, volumes or logs of the task couldn't be set up; the reason says what.",
            "See fargate doctor.",
        ),
    ),
)
"""Patterns of reasons, the more exact ones first."""


def explain_reason(reason: str) -> Explanation | None:
    """Say what a reason means; None of one that isn't known."""
    for pattern, explanation in _REASONS:
        if re.search(pattern, reason, re.DOTALL):
            return explanation
    return None
