# SPDX-License-Identifier: Apache-2.0
"""Types of the parts of libvirt's Python module that the driver uses.

The module is not typed (PEP 561), and need not be installed. Names are libvirt's.

Source: "Reference Manual for libvirt", https://libvirt.org/html/index.html.
"""
# ruff: noqa: N802, N815

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# Called with the connection, the domain, details that depend on the event, and the registered opaque value.
EventCallback = Callable[..., None]


class LibvirtError(Exception):
    """Stands for ``libvirt.libvirtError`` in annotations; the driver never raises it."""

    def get_error_code(self) -> int:
        """Return a virErrorNumber."""
        raise NotImplementedError


class Domain(Protocol):
    """virDomain: a guest."""

    def UUIDString(self) -> str: ...

    def state(self) -> list[int]:
        """Return virDomainState and the reason for it."""

    def isActive(self) -> int: ...

    def XMLDesc(self) -> str: ...

    def jobStats(self) -> dict[str, int]: ...


class Connection(Protocol):
    """virConnect: a connection to a hypervisor."""

    def close(self) -> int: ...

    def domainEventDeregisterAny(self, callback_id: int) -> None: ...

    def domainEventRegisterAny(
        self, dom: Domain | None, event_id: int, cb: EventCallback, opaque: object
    ) -> int: ...

    def getLibVersion(self) -> int: ...

    def isAlive(self) -> int: ...

    def listAllDomains(self) -> list[Domain]: ...

    def lookupByUUIDString(self, uuidstr: str) -> Domain: ...

    def registerCloseCallback(self, cb: Callable[[Connection, int, object], None], opaque: object) -> int: ...

    def setKeepAlive(self, interval: int, count: int) -> int: ...

    def unregisterCloseCallback(self) -> int: ...


class Library(Protocol):
    """The module ``libvirt``."""

    libvirtError: type[LibvirtError]

    VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: int
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: int
    VIR_DOMAIN_EVENT_ID_LIFECYCLE: int
    VIR_DOMAIN_JOB_OPERATION: str
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: int
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: int
    VIR_DOMAIN_PAUSED: int
    VIR_DOMAIN_PAUSED_MIGRATION: int
    VIR_DOMAIN_PAUSED_POSTCOPY: int
    VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: int
    VIR_DOMAIN_PAUSED_STARTING_UP: int
    VIR_DOMAIN_SHUTDOWN: int
    VIR_ERR_NO_DOMAIN: int
    VIR_ERR_NO_SUPPORT: int

    def openReadOnly(self, name: str) -> Connection: ...

    def registerErrorHandler(self, f: Callable[[object, object], None], ctx: object) -> int: ...

    def virEventRegisterDefaultImpl(self) -> int: ...

    def virEventRunDefaultImpl(self) -> int: ...
