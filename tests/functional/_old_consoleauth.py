# SPDX-License-Identifier: Apache-2.0
"""Use of memcached by the old consoleauth service, run with the libraries of its time (.venv-legacy).

The arguments are the backend, the servers (host:port,...) and the TTL. Each line of standard input is a JSON
list of a method's name and its arguments; the result is written as a line of JSON.
"""

import json
import sys
import time

from oslo_cache import core as cache
from oslo_config import cfg
from oslo_serialization import jsonutils


class Client:
    """A region that returns None for a missing value."""

    def __init__(self, region):
        self.region = region

    def get(self, key):
        return self._or_none(self.region.get(key))

    def get_multi(self, keys):
        return [self._or_none(value) for value in self.region.get_multi(keys)]

    def __getattr__(self, name):
        return getattr(self.region, name)

    @staticmethod
    def _or_none(value):
        return None if value == cache.NO_VALUE else value


class OldConsoleAuth:
    def __init__(self, backend, servers, token_ttl):
        self.tokens = self._client(backend, servers, token_ttl)
        self.instances = self._client(backend, servers, None)

    @staticmethod
    def _client(backend, servers, expiration_time):
        conf = cfg.ConfigOpts()
        cache.configure(conf)
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('enabled', True, 'cache')
        conf.set_override('backend', backend, 'cache')
        conf.set_override('memcache_servers', servers, 'cache')
        if expiration_time is not None:
            conf.set_override('expiration_time', expiration_time, 'cache')
        return Client(cache.configure_cache_region(conf, cache.create_region()))

    def _listed(self, instance_uuid):
        text = self.instances.get(instance_uuid.encode('utf-8'))
        return jsonutils.loads(text) if text else []

    def authorize_console(
        self, token, console_type, host, port, internal_access_path, instance_uuid, access_url=None
    ):
        value = {
            'token': token,
            'instance_uuid': instance_uuid,
            'console_type': console_type,
            'host': host,
            'port': port,
            'internal_access_path': internal_access_path,
            'access_url': access_url,
            'last_activity_at': time.time(),
        }
        self.tokens.set(token.encode('utf-8'), jsonutils.dumps(value))
        listed = self._listed(instance_uuid)
        values = self.tokens.get_multi([other.encode('utf-8') for other in listed])
        listed = [other for other, found in zip(listed, values, strict=True) if found is not None]
        listed.append(token)
        self.instances.set(instance_uuid.encode('utf-8'), jsonutils.dumps(listed))

    def check_token(self, token):
        text = self.tokens.get(token.encode('utf-8'))
        return None if text is None else jsonutils.loads(text)

    def delete_tokens_for_instance(self, instance_uuid):
        self.tokens.delete_multi([token.encode('utf-8') for token in self._listed(instance_uuid)])
        self.instances.delete(instance_uuid.encode('utf-8'))

    def tokens_of(self, instance_uuid):
        return self._listed(instance_uuid)


def main():
    backend, servers, token_ttl = sys.argv[1:]
    service = OldConsoleAuth(backend, servers.split(','), int(token_ttl))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(service, name)(*arguments)), flush=True)


if __name__ == '__main__':
    main()
