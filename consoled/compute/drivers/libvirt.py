# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver: consoles from the live domain XML, changes from libvirt's events."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.drivers import base, domain_xml
from consoled.compute.drivers.console_builder import ConsoleBuilder
from consoled.compute.drivers.libvirt_connection import ConnectionPool
from consoled.compute.drivers.libvirt_types import Connection, Domain, Library

LOG = logging.getLogger(__name__)

# A URI with a password before the host. Not with a parser: an unescaped character may end the host for it.
_PASSWORD = re.compile(r'[^:/?#]+://[^@?]*:[^@?]*@')


def from_conf(conf: cfg.ConfigOpts) -> LibvirtDriver:
    """Return a driver for ``[compute] libvirt_uri``.

    :raises ValueError: libvirt's Python module is not installed
    """
    try:
        import libvirt  # only here: everything else works without it
    except ImportError:
        raise ValueError(
            'The driver libvirt needs the Python module libvirt: run "pip install consoled[libvirt]", or '
            'install the package python3-libvirt of the distribution'
        ) from None
    return LibvirtDriver(conf, libvirt)


class LibvirtDriver(base.Driver):
    """All domains of one libvirtd.

    :param library: the Python module ``libvirt``
    :raises ValueError: ``[compute] libvirt_uri`` has a password: log lines would show it
    """

    def __init__(self, conf: cfg.ConfigOpts, library: Library) -> None:
        if _PASSWORD.match(conf.compute.libvirt_uri):
            raise ValueError(
                '[compute] libvirt_uri has a password: libvirt reads it from its auth.conf instead'
            )
        self._conf = conf
        self._library = library
        self._builder = ConsoleBuilder(conf)
        self._changed: base.Changed = lambda instance_uuid: None
        events = (
            library.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            library.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            library.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        )
        self._connections = ConnectionPool(
            library, conf.compute.libvirt_uri, events, self._on_event, lambda: self._changed(None)
        )
        # The domain is being migrated, or is still being started. libvirt sends an event when that is over.
        self._transient_reasons = {
            library.VIR_DOMAIN_PAUSED_MIGRATION,
            library.VIR_DOMAIN_PAUSED_STARTING_UP,
            library.VIR_DOMAIN_PAUSED_POSTCOPY,
            library.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
        }
        self._migration_jobs = {
            library.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN,
            library.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        }

    # instances and consoles

    def list_instances(self) -> list[str]:
        with self._connect() as conn:
            return [domain.UUIDString() for domain in conn.listAllDomains()]

    def list_consoles(self, instance_uuid: str) -> list[objects.ConsoleConnection]:
        with self._connect(instance_uuid) as conn:
            domain = conn.lookupByUUIDString(instance_uuid)
            state, reason = domain.state()
            if state == self._library.VIR_DOMAIN_PAUSED and reason in self._transient_reasons:
                raise _not_ready(instance_uuid, 'it is being started, or migrated to or from this host')
            text = domain.XMLDesc()
        try:
            found = domain_xml.parse(text)
        except ValueError as exc:
            LOG.error('The domain XML of instance %s %s', instance_uuid, exc)
            raise exception.HypervisorUnreachable() from None
        consoles = (self._build_console(instance_uuid, listening) for listening in found.consoles)
        return [console for console in consoles if console is not None]

    def _build_console(
        self, instance_uuid: str, listening: domain_xml.ListeningConsole
    ) -> objects.ConsoleConnection | None:
        """Return the console, or None if it is not offered or malformed: the others are still usable."""
        try:
            return self._builder.build(
                instance_uuid, listening.console_type, listening.listen, listening.port, listening.options
            )
        except ValueError as exc:
            LOG.error('Ignored the %s console of instance %s: %s', listening.console_type, instance_uuid, exc)
            return None

    def check_ready(self, instance_uuid: str) -> None:
        with self._connect(instance_uuid) as conn:
            domain = conn.lookupByUUIDString(instance_uuid)
            state, _ = domain.state()
            if not domain.isActive():
                raise _not_ready(instance_uuid, 'it is not running')
            if state == self._library.VIR_DOMAIN_SHUTDOWN:
                raise _not_ready(instance_uuid, 'it is being shut down')
            if self._job_operation(domain) in self._migration_jobs:
                raise _not_ready(instance_uuid, 'it is being migrated')

    def _job_operation(self, domain: Domain) -> int | None:
        """Return the operation of the domain's current job (virDomainJobOperation), or None."""
        try:
            return domain.jobStats().get(self._library.VIR_DOMAIN_JOB_OPERATION)
        except self._library.libvirtError as exc:
            if exc.get_error_code() != self._library.VIR_ERR_NO_SUPPORT:
                raise
            return None  # the hypervisor does not support jobs

    def ping(self) -> None:
        with self._connect() as conn:
            conn.getLibVersion()

    @contextlib.contextmanager
    def _connect(self, instance_uuid: str | None = None) -> Iterator[Connection]:
        """Provide a connection (virConnect), and translate libvirt's errors to those of ``Driver``."""
        try:
            with self._connections.connection(self._conf.compute.hypervisor_timeout) as conn:
                yield conn
        except self._library.libvirtError as exc:
            if instance_uuid is not None and exc.get_error_code() == self._library.VIR_ERR_NO_DOMAIN:
                raise exception.InstanceNotFound(instance_uuid=instance_uuid) from None
            LOG.warning('A call to libvirt failed: %s', exc)
            raise exception.HypervisorUnreachable() from None

    # events

    def watch(self, changed: base.Changed) -> None:
        self._changed = changed
        if self._connections.start():
            changed(None)  # an earlier call has connected, and changes since then were not reported

    def close(self) -> None:
        self._changed = lambda instance_uuid: None
        self._connections.close()

    def _on_event(self, conn: Connection, domain: Domain, *details: object) -> None:
        """Handle a domain event, in the thread of libvirt's event loop.

        The details are ignored, because events may be old: the reconciler inspects the instance itself.
        """
        self._changed(domain.UUIDString())


def _not_ready(instance_uuid: str, reason: str) -> exception.InstanceNotReady:
    return exception.InstanceNotReady(instance_uuid=instance_uuid, reason=reason)
