"""What is in each image, as its Dockerfile would say it.

The entry points do what those of the images of the same name on Docker Hub do.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from tests.images.programs import (
    FLASK_APP,
    MARIADB_ENTRYPOINT,
    NGINX_ENTRYPOINT,
    NGINX_SITE,
    NODE_SERVER,
    PAGE,
    POSTGRES_ENTRYPOINT,
    PROMETHEUS_CONFIG,
    REDIS_ENTRYPOINT,
    TOMCAT_PAGE,
)

PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POSTGRES_BIN: Final = "/usr/lib/postgresql/15/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image above the common base."""

    name: str
    packages: tuple[str, ...]
    before: str = ""
    """Shell commands that run in the image before its packages are installed."""
    setup: str = ""
    """The same, after that."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts by path; one that begins with `#!` is a program."""
    config: dict[str, Any]
    """`config` of the image configuration."""

    @property
    def image(self) -> str:
        return f"registry.local/{self.name}:1"


_ALL: Final = (
    Recipe(
        name="nginx",
        packages=("nginx-light", "gettext-base"),
        setup="""
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log
rm -f /etc/nginx/sites-enabled/default
mkdir -p /docker-entrypoint.d /etc/nginx/templates
""",
        files={
            "/docker-entrypoint.sh": NGINX_ENTRYPOINT,
            "/etc/nginx/conf.d/default.conf": NGINX_SITE,
            "/usr/share/nginx/html/index.html": PAGE,
        },
        config={
            "Env": [PATH],
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
    ),
    Recipe(
        name="redis",
        packages=("redis-server", "redis-tools"),
        setup="mkdir -p /data && chown redis:redis /data",
        files={"/usr/local/bin/docker-entrypoint.sh": REDIS_ENTRYPOINT},
        config={
            "Env": [PATH],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["redis-server"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
    ),
    Recipe(
        name="postgres",
        packages=("postgresql-15",),
        before="""
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
""",
        setup="""
mkdir -p /var/lib/postgresql/data /docker-entrypoint-initdb.d /var/run/postgresql
chown postgres:postgres /var/lib/postgresql/data /var/run/postgresql
chmod 1777 /var/lib/postgresql/data
chmod 3777 /var/run/postgresql
""",
        files={"/usr/local/bin/docker-entrypoint.sh": POSTGRES_ENTRYPOINT},
        config={
            "Env": [f"{PATH}:{POSTGRES_BIN}", "PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {"/var/lib/postgresql/data": {}},
            "StopSignal": "SIGINT",
        },
    ),
    Recipe(
        name="mariadb",
        packages=("mariadb-server", "mariadb-client"),
        setup="""
rm -rf /var/lib/mysql
mkdir -p /var/lib/mysql /run/mysqld /docker-entrypoint-initdb.d
chown -R mysql:mysql /var/lib/mysql /run/mysqld
chmod 1777 /run/mysqld
""",
        files={"/usr/local/bin/docker-entrypoint.sh": MARIADB_ENTRYPOINT},
        config={
            "Env": [PATH, "LANG=C.UTF-8"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["mariadbd"],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/var/lib/mysql": {}, "/tmp": {}},
        },
    ),
    Recipe(
        name="prometheus",
        packages=("prometheus",),
        setup="mkdir -p /prometheus && chown -R nobody:nogroup /prometheus /etc/prometheus",
        files={"/etc/prometheus/prometheus.yml": PROMETHEUS_CONFIG},
        config={
            "Env": [PATH],
            "User": "nobody",
            "Entrypoint": ["/usr/bin/prometheus"],
            "Cmd": [
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
            ],
            "ExposedPorts": {"9090/tcp": {}},
            "Volumes": {"/prometheus": {}},
            "WorkingDir": "/prometheus",
        },
    ),
    Recipe(
        name="python",
        packages=("python3-flask", "gunicorn"),
        setup="useradd --create-home --uid 1000 app",
        files={"/app/app.py": FLASK_APP},
        config={
            "Env": [PATH, "PYTHONUNBUFFERED=1"],
            "User": "app",
            "Cmd": ["gunicorn", "--bind=0.0.0.0:8000", "--workers=2", "app:app"],
            "ExposedPorts": {"8000/tcp": {}},
            "Volumes": {"/tmp": {}},
            "WorkingDir": "/app",
        },
    ),
    Recipe(
        name="node",
        packages=("nodejs",),
        setup="useradd --create-home --uid 1000 node",
        files={"/app/server.js": NODE_SERVER},
        config={
            "Env": [PATH, "NODE_ENV=production"],
            "User": "node",
            "Cmd": ["node", "server.js"],
            "ExposedPorts": {"3000/tcp": {}},
            "WorkingDir": "/app",
        },
    ),
    Recipe(
        name="tomcat",
        packages=("tomcat10", "default-jre-headless"),
        before="mkdir -p /usr/share/man/man1",
        setup="rm -rf /var/lib/tomcat10/webapps/ROOT && mkdir -p /var/lib/tomcat10/webapps/ROOT"
        " /var/lib/tomcat10/temp",
        files={"/var/lib/tomcat10/webapps/ROOT/index.jsp": TOMCAT_PAGE},
        config={
            "Env": [
                PATH,
                "CATALINA_HOME=/usr/share/tomcat10",
                "CATALINA_BASE=/var/lib/tomcat10",
                "JAVA_HOME=/usr/lib/jvm/default-java",
            ],
            "Cmd": ["/usr/share/tomcat10/bin/catalina.sh", "run"],
            "ExposedPorts": {"8080/tcp": {}},
            "WorkingDir": "/var/lib/tomcat10",
        },
    ),
)

RECIPES: Final = {recipe.name: recipe for recipe in _ALL}
