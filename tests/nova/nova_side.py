# SPDX-License-Identifier: Apache-2.0
"""Nova's own code, run by the Python of a virtualenv that has Nova: not a module of these tests.

    nova_side.py CONF objects            instances and tokens, by commands on the standard input
    nova_side.py CONF compute GUESTS     nova-compute's answers about the guests in the file GUESTS

It runs on Nova 18 to 34, so on Python 3.6 too. Each line of the input of ``objects`` is a JSON list: the name
of a function below, and its arguments by name. Each line of the output is the JSON of its result.

``compute`` is a real ComputeManager with the console methods of the real LibvirtDriver. Only the hypervisor
is made up: GUESTS is a JSON file, {UUID: domain XML}, read at each question. The conductor answers
too, for the lazy loads of an Instance.
"""

import json
import os
import sys
import uuid

if os.environ.get('NOVA_PATCH'):  # releases that expect to run under eventlet
    try:
        import nova.monkey_patch  # noqa: F401
    except ImportError:
        import nova.cmd  # noqa: F401

import nova.conf
from nova import config, context, objects
from oslo_utils import timeutils

CONF = nova.conf.CONF


def create_instance(host, project_id='project'):
    instance = objects.Instance(
        context.get_admin_context(),
        uuid=str(uuid.uuid4()),
        host=host,
        user_id='owner',
        project_id=project_id,
        vm_state='active',
        display_name='guest',
    )
    instance.create()
    return {'uuid': instance.uuid, 'id': instance.id}


def update_instance(instance_uuid, launched_in=None, **values):
    """Save values of an instance, as a move or a shelve does; ``launched_in``: seconds from now."""
    instance = objects.Instance.get_by_uuid(context.get_admin_context(), instance_uuid)
    for name, value in values.items():
        setattr(instance, name, value)
    if launched_in is not None:
        import datetime

        now = timeutils.utcnow(with_timezone=True)
        instance.launched_at = now + datetime.timedelta(seconds=launched_in)
    instance.save()


def destroy_instance(instance_uuid):
    objects.Instance.get_by_uuid(context.get_admin_context(), instance_uuid).destroy()


def authorize(instance_uuid, console_type, host, port, base, ttl=600, path=None):
    """Make a token as nova-compute does for get_vnc_console and its like, and return its access URL."""
    token = objects.ConsoleAuthToken(
        context=context.get_admin_context(),
        console_type=console_type,
        host=host,
        port=port,
        internal_access_path=path,
        instance_uuid=instance_uuid,
        access_url_base=base,
    )
    token.authorize(ttl)
    return {'token': token.token, 'access_url': token.access_url}


def clean(instance_uuid):
    """Delete the tokens of an instance as nova-compute does when it is deleted or has been migrated live."""
    objects.ConsoleAuthToken.clean_console_auths_for_instance(context.get_admin_context(), instance_uuid)


COMMANDS = [create_instance, update_instance, destroy_instance, authorize, clean]


def serve_objects():
    commands = {command.__name__: command for command in COMMANDS}
    print(json.dumps('ready'), flush=True)
    for line in sys.stdin:
        name, values = json.loads(line)
        print(json.dumps(commands[name](**values)), flush=True)


def serve_compute(guests):
    import oslo_messaging
    from nova import exception, rpc
    from nova.compute import manager, rpcapi
    from nova.conductor.manager import ConductorManager
    from nova.objects import base
    from nova.virt.libvirt import driver

    class Guest:
        def __init__(self, xml):
            self.get_xml_desc = lambda: xml

    class Hypervisor:
        def get_guest(self, instance):
            with open(guests) as known:
                xml = json.load(known).get(instance.uuid)
            if xml is None:
                raise exception.InstanceNotFound(instance_id=instance.uuid)
            return Guest(xml)

    class Compute(manager.ComputeManager):
        def __init__(self):
            self.driver = object.__new__(driver.LibvirtDriver)
            self.driver._host = Hypervisor()
            self.notifier = rpc.get_notifier('compute', CONF.host)
            self.host = CONF.host
            self.additional_endpoints = []

    class Conductor(ConductorManager):
        def __init__(self):
            self.additional_endpoints = []

    compute = Compute()
    endpoints = [compute]
    if hasattr(manager, '_ComputeV5Proxy'):
        endpoints.append(manager._ComputeV5Proxy(compute))
    topics = ['compute'] + ([rpcapi.RPC_TOPIC_ALT] if hasattr(rpcapi, 'RPC_TOPIC_ALT') else [])
    servers = [
        rpc.get_server(
            oslo_messaging.Target(topic=topic, server=CONF.host), endpoints, base.NovaObjectSerializer()
        )
        for topic in topics
    ]
    servers.append(
        rpc.get_server(
            oslo_messaging.Target(topic='conductor', server=CONF.host),
            [Conductor()],
            base.NovaObjectSerializer(),
        )
    )
    for server in servers:
        server.start()
    print(json.dumps('ready'), flush=True)
    for server in servers:
        server.wait()


def main():
    from oslo_log import log

    config.parse_args(['nova-compute', '--config-file', sys.argv[1]])
    log.setup(CONF, 'nova')
    objects.register_all()
    if sys.argv[2] == 'objects':
        serve_objects()
    else:
        serve_compute(sys.argv[3])


if __name__ == '__main__':
    main()
