# SPDX-License-Identifier: Apache-2.0
"""Nova's API and Placement, run by the Python of a virtualenv that has both: not a module of these tests.

    cloud_side.py DIRECTORY PORT

DIRECTORY has nova.conf, api-paste.ini and placement.conf. First the databases are set up, as ``nova-manage``
does it. Then http://127.0.0.1:PORT serves ``/compute`` and ``/placement``, both as deployed, and stubs of the
services around them: ``/identity`` lets everybody in, ``/image`` has one image (the file ``disk``), and
``/network`` has nothing. In the place of keystonemiddleware, ``token_factory`` says who sends a request.
"""

import hashlib
import json
import os
import pathlib
import socketserver
import sys
import wsgiref.simple_server
import wsgiref.util

DIRECTORY = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
IMAGE = '0a0a0a0a-0000-4000-8000-00000000d15c'
_HEADERS = {
    'HTTP_X_IDENTITY_STATUS': 'Confirmed',
    'HTTP_X_USER_ID': 'owner',
    'HTTP_X_PROJECT_ID': 'project',
    'HTTP_X_AUTH_TOKEN': 'canary-of-user',
    'HTTP_X_ROLES': 'admin,manager,member,reader',
}


def token_factory(global_conf, **local_conf):
    """Make the paste filter ``authtoken``: it says about each request what keystonemiddleware would."""
    return lambda application: (
        lambda environ, start_response: application({**environ, **_HEADERS}, start_response)
    )


def _answer(start_response, content, kind='application/json', status='200 OK'):
    start_response(status, [('Content-Type', kind), ('Content-Length', str(len(content)))])
    return [content]


def image(environ, start_response):
    """Answer as Glance does about its only image."""
    disk = (DIRECTORY / 'disk').read_bytes()
    if environ['PATH_INFO'].endswith('/file'):
        return _answer(start_response, disk, 'application/octet-stream')
    described = {
        'id': IMAGE,
        'name': 'disk',
        'status': 'active',
        'visibility': 'public',
        'owner': 'project',
        'disk_format': 'raw',
        'container_format': 'bare',
        'size': len(disk),
        'checksum': hashlib.md5(disk).hexdigest(),
        'min_disk': 0,
        'min_ram': 0,
        'protected': False,
        'tags': [],
        'created_at': '2026-01-01T00:00:00Z',
        'updated_at': '2026-01-01T00:00:00Z',
        'file': f'/v2/images/{IMAGE}/file',
        'schema': '/v2/schemas/image',
    }
    if environ['PATH_INFO'].startswith('/v2/schemas'):
        described = {'name': 'image', 'properties': {name: {} for name in described}}
    return _answer(start_response, json.dumps(described).encode())


def network(environ, start_response):
    """Answer as a Neutron that has nothing of what it is asked for."""
    return _answer(start_response, json.dumps({environ['PATH_INFO'].split('/')[-1]: []}).encode())


def identity(environ, start_response):
    """Answer as Keystone to whoever logs in: with a token of ``owner``, and where the services are."""
    here = f'http://{environ["HTTP_HOST"]}'
    domain = {'id': 'default', 'name': 'Default'}
    services = {
        'compute': '/compute/v2.1',
        'identity': '/identity/v3',
        'image': '/image',
        'network': '/network',
    }
    token = {
        'methods': ['password'],
        'user': {'id': 'owner', 'name': 'owner', 'domain': domain},
        'project': {'id': 'project', 'name': 'project', 'domain': domain},
        'roles': [{'id': name, 'name': name} for name in ('admin', 'member')],
        'issued_at': '2026-01-01T00:00:00.000000Z',
        'expires_at': '2126-01-01T00:00:00.000000Z',
        'catalog': [
            {
                'id': name,
                'type': name,
                'name': name,
                'endpoints': [
                    {'id': name, 'interface': 'public', 'region': 'RegionOne', 'url': here + path},
                ],
            }
            for name, path in services.items()
        ],
    }
    headers = [('Content-Type', 'application/json'), ('X-Subject-Token', _HEADERS['HTTP_X_AUTH_TOKEN'])]
    start_response('201 Created', headers)
    return [json.dumps({'token': token}).encode()]


def set_up_databases(manage, connections):
    """Do what ``nova-manage api_db sync``, ``cell_v2 map_cell0``, ``create_cell`` and ``db sync`` do."""
    done = [
        manage.ApiDbCommands().sync(),
        manage.CellV2Commands().map_cell0(database_connection=connections['cell0']),
        manage.CellV2Commands().create_cell(
            name='cell1', database_connection=connections['cell1'], transport_url=connections['bus']
        ),
        manage.DbCommands().sync(),
    ]
    if any(done):
        raise SystemExit(f'nova-manage: {done}')


def make_flavor():
    from nova import context, objects

    objects.Flavor(
        context.get_admin_context(),
        flavorid='small',
        name='small',
        vcpus=1,
        memory_mb=32,
        root_gb=1,
        ephemeral_gb=0,
        swap=0,
        rxtx_factor=1.0,
        is_public=True,
        disabled=False,
    ).create()


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        """Log nothing: the applications do."""


def set_up():
    """Set up the databases, in a process of its own: what it configures is configured for good."""
    from nova.cmd import manage  # isort: skip - first, because it makes Nova use threads
    from nova import config, objects

    child = os.fork()
    if not child:
        config.parse_args(['nova-manage', '--config-file', str(DIRECTORY / 'nova.conf')])
        objects.register_all()
        set_up_databases(manage, json.loads((DIRECTORY / 'connections.json').read_text()))
        make_flavor()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit('the databases could not be set up')


def main():
    os.environ['OS_NOVA_CONFIG_DIR'] = os.environ['OS_PLACEMENT_CONFIG_DIR'] = str(DIRECTORY)
    port = int(sys.argv[2])
    del sys.argv[1:]
    set_up()
    from nova.api.openstack import wsgi_app
    from placement import wsgi as placement

    applications = {
        'placement': placement.init_application(),
        'compute': wsgi_app.init_application('osapi_compute', 'nova-api'),
        'identity': identity,
        'image': image,
        'network': network,
    }

    def choose(environ, start_response):
        wsgiref.util.shift_path_info(environ)
        return applications[environ['SCRIPT_NAME'].strip('/')](environ, start_response)

    server = wsgiref.simple_server.make_server('127.0.0.1', port, choose, Server, Handler)
    print(json.dumps('ready'), flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
