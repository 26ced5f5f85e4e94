# SPDX-License-Identifier: Apache-2.0
"""Load balancers that serve a cell below a path, and log as they usually do."""

import pathlib
import socket
import subprocess
import textwrap

import fixtures

from consoled.testing import service_process, services
from consoled.testing.fixtures import wait_until


class Balancer(fixtures.Fixture):
    """A load balancer that serves ``target`` below ``prefix``.

    :param target: port of the proxy, or of the next load balancer
    :param prefix: path that it removes, ending with a slash
    :param log_format: lines of its configuration; the default is the usual format
    :ivar port: TCP port on loopback
    """

    default_format = ''

    def __init__(self, target, prefix, log_format=None):
        super().__init__()
        self._target = target
        self._prefix = prefix
        self._format = log_format or self.default_format

    def _setUp(self):  # noqa: N802 - named by the library
        self.port = services.free_port()
        self._directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._log = self._directory / 'log'
        config = self._directory / 'config'
        config.write_text(textwrap.dedent(self._config()))
        with self._log.open('ab') as output:
            process = service_process.spawn(
                self._command(config), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: self._listens(process), what='the load balancer')

    def _listens(self, process):
        if process.poll() is not None:
            raise RuntimeError(f'the load balancer exited: {self.log()}')
        with socket.socket() as probe:
            return probe.connect_ex(('127.0.0.1', self.port)) == 0

    def log(self):
        """Return all that it has logged."""
        return self._log.read_text()


class Nginx(Balancer):
    default_format = 'access_log /dev/stdout combined;'

    def _command(self, config):
        return [services.find_program('nginx'), '-p', str(self._directory), '-c', str(config)]

    def _config(self):
        return f"""
            daemon off;
            master_process off;
            pid {self._directory}/pid;
            error_log stderr;
            events {{}}
            http {{
              {self._format}
              {self.paths()}
              map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
              server {{
                listen 127.0.0.1:{self.port};
                location {self._prefix} {{
                  proxy_pass http://127.0.0.1:{self._target}/;
                  proxy_http_version 1.1;
                  proxy_set_header Upgrade $http_upgrade;
                  proxy_set_header Connection $connection_upgrade;
                  proxy_set_header Host $http_host;
                }}
              }}
            }}
        """

    def paths(self):
        names = ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')
        return ' '.join(f'{name}_temp_path {self._directory}/{name};' for name in names)


class HAProxy(Balancer):
    default_format = 'option httplog'

    def _command(self, config):
        return [services.find_program('haproxy'), '-db', '-f', str(config)]

    def _config(self):
        return f"""
            global
                log stdout format raw local0
            defaults
                mode http
                log global
                {self._format}
                timeout connect 5s
                timeout client 1m
                timeout server 1m
                timeout tunnel 1h
            frontend consoles
                bind 127.0.0.1:{self.port}
                http-request replace-path {self._prefix}(.*) /\\1 if {{ path_beg {self._prefix} }}
                default_backend cell
            backend cell
                server proxy-1 127.0.0.1:{self._target}
        """
