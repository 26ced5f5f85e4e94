# SPDX-License-Identifier: Apache-2.0
"""Guests of libvirt: their consoles as the live domain XML has them, and libvirt's events."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.drivers import base, domain_xml
from consoled.compute.drivers.console_builder import ConsoleBuilder
from consoled.compute.drivers.libvirt_connection import Connections

LOG = logging.getLogger(__name__)


def from_conf(conf: cfg.ConfigOpts) -> LibvirtDriver:
    """The driver as configured.

    :raises ValueError: libvirt's Python module is not installed
    """
    try:
        import libvirt  # only here: all else of consoled works without it
    except ImportError:
        raise ValueError(
            'the driver libvirt needs the Python module libvirt: pip install consoled[libvirt], or the '
            'package python3-libvirt of the distribution'
        ) from None
    return LibvirtDriver(conf, libvirt)


class LibvirtDriver(base.Driver):
    """All guests of one libvirtd.

    :param library: libvirt's module
    """

    def __init__(self, conf: cfg.ConfigOpts, library: Any) -> None:
        self._conf = conf
        self._library = library
        self._builder = ConsoleBuilder(conf)
        self._changed: base.Changed = lambda instance_uuid: None
        events = (
            library.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            library.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            library.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        )
        self._connections = Connections(
            library, conf.compute.libvirt_uri, events, self._happened, lambda: self._changed(None)
        )
        # The guest is between two hosts, or is not yet what it will be. An event follows when that is over.
        self._on_its_way = {
            library.VIR_DOMAIN_PAUSED_MIGRATION,
            library.VIR_DOMAIN_PAUSED_STARTING_UP,
            library.VIR_DOMAIN_PAUSED_POSTCOPY,
            library.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
        }
        self._migrations = {
            library.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,
            library.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        }

    # guests and consoles

    def list_instances(self) -> list[str]:
        with self._asking() as conn:
            return [str(domain.UUIDString()) for domain in conn.listAllDomains()]

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        with self._asking(instance_uuid) as conn:
            domain = conn.lookupByUUIDString(instance_uuid)
            state, reason = domain.state()
            if state == self._library.VIR_DOMAIN_PAUSED and reason in self._on_its_way:
                raise _not_ready(instance_uuid, 'it is on its way to or from this host')
            text = domain.XMLDesc()
        try:
            found = domain_xml.parse(text)
        except ValueError as exc:
            LOG.error('the XML of guest %s %s', instance_uuid, exc)
            raise exception.HypervisorUnreachable() from None
        consoles = (self._placed(instance_uuid, place) for place in found.consoles)
        return [console for console in consoles if console is not None]

    def _placed(
        self, instance_uuid: str, place: domain_xml.ListeningConsole
    ) -> objects.ConsoleConnection | None:
        try:
            return self._builder.place(
                instance_uuid, place.console_type, place.listen, place.port, place.options
            )
        except ValueError as exc:
            LOG.error('the %s console of guest %s is left out: %s', place.console_type, instance_uuid, exc)
            return None

    def check_ready(self, instance_uuid: str) -> None:
        with self._asking(instance_uuid) as conn:
            domain = conn.lookupByUUIDString(instance_uuid)
            state, _ = domain.state()
            if not domain.isActive():
                raise _not_ready(instance_uuid, 'it is not running')
            if state == self._library.VIR_DOMAIN_SHUTDOWN:
                raise _not_ready(instance_uuid, 'it is being shut down')
            if self._operation(domain) in self._migrations:
                raise _not_ready(instance_uuid, 'it is being migrated')

    def _operation(self, domain: Any) -> int | None:
        """What is being done with the guest (virDomainJobOperation), or None."""
        try:
            operation: int | None = domain.jobStats().get(self._library.VIR_DOMAIN_JOB_OPERATION)
        except self._library.libvirtError as exc:
            if exc.get_error_code() != self._library.VIR_ERR_NO_SUPPORT:
                raise
            return None  # a hypervisor that does not migrate
        return operation

    def ping(self) -> None:
        with self._asking() as conn:
            conn.getLibVersion()

    @contextlib.contextmanager
    def _asking(self, instance_uuid: str | None = None) -> Iterator[Any]:
        """A connection; libvirt's errors become those of the contract."""
        try:
            with self._connections.use(self._conf.compute.hypervisor_timeout) as conn:
                yield conn
        except self._library.libvirtError as exc:
            if instance_uuid is not None and exc.get_error_code() == self._library.VIR_ERR_NO_DOMAIN:
                raise exception.InstanceNotFound(instance_uuid=instance_uuid) from None
            LOG.warning('libvirt: %s', exc)
            raise exception.HypervisorUnreachable() from None

    # events

    def watch(self, changed: base.Changed) -> None:
        self._changed = changed
        if self._connections.start():
            changed(None)  # somebody has asked before, and what happened since was told to nobody

    def close(self) -> None:
        self._changed = lambda instance_uuid: None
        self._connections.close()

    def _happened(self, conn: Any, domain: Any, *what: Any) -> None:
        """Called by libvirt's event loop. What happened is not believed but looked at: events may be old."""
        self._changed(str(domain.UUIDString()))


def _not_ready(instance_uuid: str, reason: str) -> exception.InstanceNotReady:
    return exception.InstanceNotReady(instance_uuid=instance_uuid, reason=reason)
