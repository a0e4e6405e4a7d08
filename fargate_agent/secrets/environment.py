"""Which of several values of one variable a container gets; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import ContainerPlan
from fargate_agent.secrets.pick import can_be_written


def add_to_environment(
    container: ContainerPlan, secrets: Mapping[str, str], files: Sequence[Mapping[str, str]]
) -> ContainerPlan:
    """Return the container with the variables of secrets and of environment files.

    From the weakest to the strongest: environment files, of which the first wins; `environment`;
    secrets; what the agent adds. The image is weaker than all of them.

    Source: amazon-ecs-agent, agent/api/container/container.go, `MergeEnvironmentVariables` and
    `MergeEnvironmentVariablesFromEnvfiles`; agent/api/task/task.go.

    Raises:
        ResourceInitializationError: the value of a secret can't be that of a variable.
    """
    for name, value in secrets.items():
        if "\0" in value or not can_be_written(value):
            what = "a NUL character" if "\0" in value else "half a character"
            raise ResourceInitializationError(
                f"the secret {name} has {what}, which no variable can have",
                container=container.name,
            )
    from_files: dict[str, str] = {}
    for file in reversed(files):
        from_files |= file
    given = from_files.keys() | secrets.keys()
    gone = [names for names in container.gives_way if names & given]
    own = {
        name: value
        for name, value in container.environment.items()
        if not any(name in names for names in gone)
    }
    added = {name: own[name] for name in container.injected if name in own}
    return replace(
        container,
        environment={**from_files, **own, **secrets, **added},
        gives_way=tuple(names for names in container.gives_way if names not in gone),
    )
