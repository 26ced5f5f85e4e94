# SPDX-License-Identifier: Apache-2.0
"""Reconciler: keeps what the managers know about this host's instances in step with the hypervisor.

The compute agent is a level-triggered controller, in the words of Kubernetes. The driver is its informer: it
says which instance may have changed, not how. ``WorkQueue`` holds the UUIDs of those instances, each at most
once, with a backoff per key. ``Reconciler`` takes them off the queue in one thread and reconciles each:
``Inspector`` reads the consoles that the instance has now, and ``Reporter`` calls a manager with them.

Events that are lost, repeated or late do no harm: no event carries a state that could be out of date, and all
instances are also compared periodically (``ComparisonSchedule``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from oslo_config import cfg

from consoled import backoff, exception, objects
from consoled.compute import schedule
from consoled.compute.drivers.base import Driver
from consoled.compute.inspector import GONE, Inspector, State
from consoled.compute.metrics import Metrics
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reporter import Reporter
from consoled.compute.workqueue import ALL_INSTANCES, Key, WorkQueue

LOG = logging.getLogger(__name__)


class Reconciler:
    """Reports the present state of changed instances to the managers.

    One thread does it all: the states of an instance are reported in their order, the newest wins, and events
    that arrive during a report collapse. Each report is a call that is repeated until a manager answers it.

    :param port_conflicts: gets the consoles of the instances that are inspected
    :param resync_delay: seconds before a state that was reported is reported once more
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        driver: Driver,
        reporter: Reporter,
        port_conflicts: PortConflicts,
        metrics: Metrics,
        *,
        resync_delay: float = schedule.RESYNC_DELAY,
    ) -> None:
        self._conf = conf
        self._driver = driver
        self._reporter = reporter
        self._port_conflicts = port_conflicts
        self._metrics = metrics
        self._resync_delay = resync_delay
        self._queue = WorkQueue()
        self._inspector = Inspector(driver, port_conflicts, self._queue, resync_delay)
        self._schedule = schedule.ComparisonSchedule(conf, resync_delay)
        self._inspected: dict[str, State | None] | None = None  # while all instances are inspected
        self._attempted = threading.Event()
        self._thread = threading.Thread(target=self._run, name='reconciler', daemon=True)

    # called from other threads

    def start(self) -> None:
        """Start the thread, which begins with a comparison of all instances."""
        self._queue.add(ALL_INSTANCES)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """Report nothing more; wait for at most ``timeout`` seconds for the report under way."""
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_attempted(self, timeout: float | None = None) -> bool:
        """Wait for the end of the first comparison of all instances, successful or not.

        :param timeout: seconds; None for no limit
        :returns: whether it has ended
        """
        return self._attempted.wait(timeout)

    def enqueue(self, instance_uuid: str | None) -> None:
        """Have an instance reconciled that may have changed; None: compare all instances."""
        self._queue.add(instance_uuid)

    def ensure_reported(
        self,
        instance_uuid: str,
        consoles: Sequence[objects.ConsoleConnection],
        timeout: float,
        *,
        force: bool = False,
    ) -> None:
        """Wait until the managers know that the instance has these consoles, for at most ``timeout`` seconds.

        :param force: report them even if the managers have acknowledged them: they have lost them since
        """
        if force:
            self._reporter.forget(instance_uuid)
        if not self._reporter.is_acknowledged(instance_uuid, consoles):
            self._queue.add(instance_uuid)
            self._reporter.wait_acknowledged(instance_uuid, consoles, timeout)

    # the thread

    def _run(self) -> None:
        while (due := self._queue.get_all()) is not None:
            resync_all = due.pop(ALL_INSTANCES, None)
            self._reconcile_instances({key: resync for key, resync in due.items() if key is not None})
            if resync_all is not None:
                self._reconcile_all(resync=resync_all)

    # the thread: single instances

    def _reconcile_instances(self, due: dict[str, bool]) -> None:
        """Reconcile instances, until no manager can be reached: the rest is queued again."""
        reachable = True
        for instance_uuid, resync in due.items():
            if reachable and not self._queue.closed:
                reachable = self._reconcile(instance_uuid, resync=resync)
            else:
                self._queue.add(instance_uuid, resync=resync)
        self._metrics.set_waiting(len(self._queue))

    def _reconcile(self, instance_uuid: str, *, resync: bool) -> bool:
        """Inspect an instance and report its state.

        :returns: False if no manager can be reached
        """
        state = self._inspect(instance_uuid)
        return state is None or self._report(instance_uuid, state, resync=resync)

    def _inspect(self, instance_uuid: str) -> State | None:
        state = self._inspector.inspect(instance_uuid)
        if self._inspected is not None:
            self._inspected[instance_uuid] = state
        return state

    def _report(self, instance_uuid: str, state: State, *, resync: bool) -> bool:
        """Report the state of an instance.

        :returns: False if no manager can be reached
        """
        try:
            if state is GONE:
                self._reporter.report_gone(instance_uuid)
            else:
                self._reporter.report_consoles(instance_uuid, state)
        except exception.ConsoledException as exc:
            return self._handle_report_error(instance_uuid, exc)
        self._queue.forget_pauses()
        if not resync:
            self._queue.add_after(instance_uuid, backoff.jittered(self._resync_delay), resync=True)
        return True

    # the thread: all instances

    def _reconcile_all(self, *, resync: bool) -> None:
        """Compare all instances with what the managers know. Instances that change during this go first."""
        self._inspected = {}
        try:
            self._inspect_all(self._inspected)
        except exception.HypervisorUnreachable:
            LOG.warning('No answer from the hypervisor: no instance is considered changed or gone')
            self._queue.add_with_backoff(ALL_INSTANCES)
        except Exception:  # a fault here must not end the thread
            LOG.exception('Could not inspect the instances')
            self._queue.add_with_backoff(ALL_INSTANCES)
        else:
            self._queue.forget(ALL_INSTANCES)
            self._report_all(self._inspected, resync=resync)
        self._inspected = None
        self._attempted.set()

    def _inspect_all(self, inspected: dict[str, State | None]) -> None:
        """Inspect all instances of this host.

        :param inspected: gets the state of each instance; None if it cannot be determined now
        :raises HypervisorUnreachable: the hypervisor does not answer at all; it may fail for one instance
        """
        for instance_uuid in self._driver.list_instances():
            self._reconcile_instances(self._queue.get_instances_nowait())
            if instance_uuid not in inspected and self._inspect(instance_uuid) is None:
                self._driver.ping()
        self._reconcile_instances(self._queue.get_instances_nowait())

    def _report_all(self, inspected: dict[str, State | None], *, resync: bool) -> None:
        instances = {uuid: state for uuid, state in inspected.items() if state is not GONE}
        self._port_conflicts.retain(instances)
        try:
            counts = self._reporter.report_host(instances)
        except exception.ConsoledException as exc:
            self._handle_report_error(ALL_INSTANCES, exc)
            return
        self._queue.forget_pauses()
        LOG.log(
            logging.INFO if counts else logging.DEBUG,
            'Compared with the managers: %d instances, of which %d had changed; %d retired',
            len(instances),
            counts.changed,
            counts.retired,
        )
        self._metrics.set_compared(len(instances))
        self._queue.add_after(ALL_INSTANCES, self._schedule.next_delay(resync=resync), resync=True)

    # failures

    def _handle_report_error(self, key: Key, error: exception.ConsoledException) -> bool:
        """Have a report repeated if that may help.

        :returns: False if no manager can be reached
        """
        subject = 'all instances' if key is ALL_INSTANCES else f'instance {key}'
        if error.retryable:
            LOG.warning('Could not report %s to the managers: %s', subject, error)
            self._queue.add(key)  # to be inspected again, so that the newest state is reported
            self._queue.pause_with_backoff()
            return False
        LOG.error('The managers refused the report of %s: %s', subject, error)
        if isinstance(error, exception.InternalError):
            self._queue.add_with_backoff(key)
        elif key is ALL_INSTANCES:  # they would refuse it again, until something changes
            self._queue.add_after(ALL_INSTANCES, self._conf.compute.sync_interval)
        return True
