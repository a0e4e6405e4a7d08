"""The programs and files that images bring along, besides Debian's packages."""

from typing import Final

PAGE: Final = "from the image\n"

NGINX_ENTRYPOINT: Final = """\
#!/bin/sh
set -e
for template in /etc/nginx/templates/*.template; do
    [ -e "$template" ] || continue
    name=$(basename "$template" .template)
    envsubst <"$template" >"/etc/nginx/conf.d/$name"
done
exec "$@"
"""

NGINX_SITE: Final = """\
server {
    listen 80;
    root /usr/share/nginx/html;
}
"""

REDIS_ENTRYPOINT: Final = """\
#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then
    set -- redis-server "$@"
fi
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . \\! -user redis -exec chown redis '{}' +
    exec setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
fi
exec "$@"
"""

POSTGRES_ENTRYPOINT: Final = """\
#!/bin/bash
set -Eeo pipefail

if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    find "$PGDATA" \\! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql \\! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "$POSTGRES_PASSWORD" ]; then
        echo >&2 'Error: Database is uninitialized and superuser password is not specified.'
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    initdb --username="$user" --pwfile=<(printf "%s\\n" "$POSTGRES_PASSWORD")
    printf '\\nhost all all all scram-sha-256\\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
    if [ "$database" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --username "$user" --dbname postgres \\
            --set db="$database" <<<'CREATE DATABASE :"db" ;'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) . "$file" ;;
            *.sql) psql -v ON_ERROR_STOP=1 --username "$user" --dbname "$database" -f "$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo 'PostgreSQL init process complete; ready for start up.'
fi
exec "$@" -c listen_addresses='*'
"""

MARIADB_ENTRYPOINT: Final = """\
#!/bin/bash
set -eo pipefail

if [ "$1" != mariadbd ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    find /var/lib/mysql \\! -user mysql -exec chown mysql: '{}' +
    find /run/mysqld -maxdepth 0 \\! -user mysql -exec chown mysql: '{}' +
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$BASH_SOURCE" "$@"
fi
if [ ! -d /var/lib/mysql/mysql ]; then
    if [ -z "$MARIADB_ROOT_PASSWORD" ]; then
        echo >&2 'Database is uninitialized and password option is not specified'
        exit 1
    fi
    mariadb-install-db --datadir=/var/lib/mysql --auth-root-authentication-method=normal \\
        --skip-test-db >/dev/null
    mariadbd --skip-networking --socket=/run/mysqld/mysqld.sock &
    pid=$!
    until mariadb-admin --user=root ping >/dev/null 2>&1; do
        kill -0 $pid
        sleep 0.1
    done
    mariadb --user=root <<SQL
ALTER USER 'root'@'localhost' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';
CREATE USER 'root'@'%' IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';
GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
CREATE DATABASE ${MARIADB_DATABASE:-app};
SQL
    MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb-admin --user=root shutdown
    wait $pid
    echo 'MariaDB init process done. Ready for start up.'
fi
exec "$@" --bind-address=0.0.0.0
"""

PROMETHEUS_CONFIG: Final = """\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: [localhost:9090]
"""

FLASK_APP: Final = """\
import os
import tempfile

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def home():
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 100_000)
        return jsonify(greeting=os.environ["GREETING"], uid=os.getuid(), temporary=file.name)
"""

NODE_SERVER: Final = """\
const http = require('http');
const fs = require('fs');

http.createServer((request, response) => {
  fs.writeFileSync('/tmp/last', request.url);
  response.end(`hello from node at ${request.url}\\n`);
}).listen(3000, () => console.log('listening'));
"""

TOMCAT_PAGE: Final = """\
<%= "max memory " + (Runtime.getRuntime().maxMemory() >> 20) + " processors "
    + Runtime.getRuntime().availableProcessors() %>
"""
