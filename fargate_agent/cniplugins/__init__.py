"""CNI plugins: programs for container runtimes, over `fargate_agent.network`.

Each call is a process of its own, so all of this is imported anew for every container. That is why
facts are named tuples here, and paths are text: dataclasses and pathlib take longer to load than an
interface takes to make.
"""
