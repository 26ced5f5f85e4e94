# SPDX-License-Identifier: Apache-2.0
"""Inspection of instances: which consoles each has now, according to the hypervisor."""

from __future__ import annotations

import enum
import logging
from typing import Final

from consoled import exception, objects
from consoled.compute.drivers.base import Driver
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.workqueue import WorkQueue

LOG = logging.getLogger(__name__)


class Gone(enum.Enum):
    """State of an instance that is not on this host."""

    GONE = enum.auto()


GONE: Final = Gone.GONE

# The consoles that can be offered to users, or GONE.
State = list[objects.ConsoleConnection] | Gone


class Inspector:
    """Finds out the state of one instance at a time. An instance that cannot be inspected is queued again.

    :param queue: also gets the instances whose consoles are affected by those of the inspected one
    :param resync_delay: seconds before an instance that is between two hosts is inspected again
    """

    def __init__(
        self, driver: Driver, port_conflicts: PortConflicts, queue: WorkQueue, resync_delay: float
    ) -> None:
        self._driver = driver
        self._port_conflicts = port_conflicts
        self._queue = queue
        self._resync_delay = resync_delay

    def inspect(self, instance_uuid: str) -> State | None:
        """Return the state of an instance, or None if it cannot be determined now."""
        try:
            state = self._inspect(instance_uuid)
        except exception.InstanceNotReady:
            # the driver reports the end of a migration; this covers a lost event
            self._queue.add_after(instance_uuid, self._resync_delay)
        except exception.HypervisorUnreachable:
            self._queue.add_with_backoff(instance_uuid)
        except Exception:  # a fault of the driver must not keep the other instances waiting
            LOG.exception('Could not inspect instance %s', instance_uuid)
            self._queue.add_with_backoff(instance_uuid)
        else:
            self._queue.forget(instance_uuid)
            return state
        return None

    def _inspect(self, instance_uuid: str) -> State:
        consoles: list[objects.ConsoleConnection] = []
        state: State = GONE
        try:
            consoles = self._driver.list_consoles(instance_uuid)
        except exception.InstanceNotFound:
            pass
        else:
            state = self._port_conflicts.exclude_shared(consoles)
        for affected in self._port_conflicts.record(instance_uuid, consoles):
            self._queue.add(affected)
        return state
