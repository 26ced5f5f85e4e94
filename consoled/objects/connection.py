# SPDX-License-Identifier: Apache-2.0
"""One place where a guest's console can be reached."""

from __future__ import annotations

from oslo_versionedobjects import fields as ovo_fields

from consoled.objects import base, fields


@base.register
class ConsoleConnection(base.ConsoledObject):
    """A console: (instance_uuid, host, port), with its type and options.

    ``compute_host`` is the name of the compute service; ``host`` is the address a proxy connects to.
    ``options`` may hold ``tls_port``, ``internal_access_path``, ``mode``, ``use_tls``.
    """

    VERSION = '1.0'
    fields = {
        'instance_uuid': fields.StrictUUIDField(),
        'console_type': fields.ConsoleTypeField(),
        'host': fields.HostField(),
        'port': fields.PortField(),
        'compute_host': fields.NameField(),
        'access_url_base': fields.UrlField(nullable=True, default=None),
        'options': fields.OptionsField(default={}),
    }


@base.register
class ConsoleConnectionList(base.ConsoledObjectList):
    """Consoles of one instance."""

    VERSION = '1.0'
    fields = {'objects': ovo_fields.ListOfObjectsField('ConsoleConnection')}
