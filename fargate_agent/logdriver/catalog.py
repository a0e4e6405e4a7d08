"""All log drivers, as the settings of an agent want them."""

from collections.abc import Mapping

from fargate_agent.drivers import LogDriver, LoggerUser
from fargate_agent.logdriver.added_flags import ADDED_FLAGS, add_attributes
from fargate_agent.logdriver.firelens import make_firelens_driver
from fargate_agent.logdriver.jsonfile import JsonFileDriver, LocalLogsDriver, NoneDriver
from fargate_agent.logdriver.logger import LoggerDriver, LoggerSettings
from fargate_agent.settings import AgentSettings
from fargate_agent.wire.log_options import DESTINATIONS, DRIVER_OPTIONS


def make_log_drivers(
    settings: AgentSettings,
    user: LoggerUser | None,
) -> Mapping[str, LogDriver]:
    """Return every driver by its name in a task definition.

    `user` is whom loggers run as.
    """
    programs = settings.shim_loggers_dir.resolve()
    json_file = JsonFileDriver(
        program=programs / "json-file",
        max_size=settings.log_max_size,
        max_file=settings.log_max_file,
    )
    shared = LoggerSettings(
        program=programs / "logger",
        mode=settings.log_driver_mode,
        copy=(
            {
                "copy-max-size": settings.log_max_size,
                "copy-max-file": str(settings.log_max_file),
            }
            if settings.log_copy
            else {}
        ),
        user=user,
        desk=settings.logger_socket.absolute(),
        host_paths=settings.log_host_paths,
    )
    defaults: Mapping[str, Mapping[str, str]] = {
        "awslogs": {
            "awslogs-endpoint": settings.awslogs_endpoint or settings.aws_endpoint_url or ""
        }
    }
    loggers = {
        name: LoggerDriver(
            options=DRIVER_OPTIONS[name],
            add_flags=ADDED_FLAGS.get(name, add_attributes),
            settings=shared,
            needs_network=DRIVER_OPTIONS[name].in_netns,
            defaults=defaults.get(name, {}),
        )
        for name in DESTINATIONS
    }
    drivers: dict[str, LogDriver] = dict(loggers)
    if settings.logs_are_local:
        drivers["awslogs"] = LocalLogsDriver(replaced=loggers["awslogs"], copy=json_file)
    return {
        **drivers,
        "awsfirelens": make_firelens_driver(shared),
        "json-file": json_file,
        "none": NoneDriver(copy=json_file if settings.log_copy else None),
    }
