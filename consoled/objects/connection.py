# SPDX-License-Identifier: Apache-2.0
"""Consoles: where, and how, a guest's console can be reached."""

from __future__ import annotations

from oslo_versionedobjects import fields as ovo_fields

from consoled.objects import base, fields


@base.register
class ConsoleConnection(base.ConsoledObject):
    """A console, identified by (instance_uuid, host, port), with its type and options.

    :ivar host: address that a proxy connects to
    :ivar compute_host: name of the compute service, which may differ from ``host``
    :ivar options: may hold ``tls_port``, ``internal_access_path``, ``mode`` and ``use_tls``
    """

    instance_uuid: str
    console_type: str
    host: str
    port: int
    compute_host: str
    access_url_base: str | None
    options: dict[str, str | None]

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
    """The consoles of one instance."""

    objects: list[ConsoleConnection]

    VERSION = '1.0'
    fields = {'objects': ovo_fields.ListOfObjectsField('ConsoleConnection')}
