# SPDX-License-Identifier: Apache-2.0
"""Keeps the managers' knowledge of this host's guests true."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from oslo_config import cfg

from consoled import backoff, exception, objects
from consoled.compute.drivers.base import Driver
from consoled.compute.metrics import Metrics
from consoled.compute.port_conflicts import PortConflicts
from consoled.compute.reporter import Reporter
from consoled.compute.workqueue import Key, WorkQueue
from consoled.rpc.client import ConsoleAuthAPI

LOG = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds until what failed is tried again; doubles up to
_LONGEST_PAUSE = 15.0

# Whatever was told is told once more after so many seconds. What this host said before, or another host said
# of the same guest, may be carried out late, after it; and a hypervisor that was started just now is still
# finding out.
_ONCE_MORE = 30.0


class _Gone:
    """The guest is not on this host."""


# A guest's consoles, or that it is not here
Known = list[objects.ConsoleConnection] | _Gone
# None: it can't be said yet whose it is
Seen = Known | None


class Reconciler:
    """Looks at the guests that have changed, and tells the managers what they have now.

    One thread does it all: a guest's states are told in their order, the newest wins, and events that come
    meanwhile collapse. Each telling is a call, made again until it is answered.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, driver: Driver, manager: ConsoleAuthAPI, metrics: Metrics
    ) -> None:
        self._conf = conf
        self._driver = driver
        self._metrics = metrics
        self._reporter = Reporter(conf, manager, metrics)
        self._queue = WorkQueue()
        self._port_conflicts = PortConflicts()
        self._failures: dict[Key, int] = {}  # to look at it, since it last went well
        self._unanswered = 0  # calls to the managers, since the last one that was answered
        self._spread = False  # all are compared at a time of this host's own
        self._seen: dict[str, Seen] | None = None  # while all guests are looked at
        self._attempted = threading.Event()
        self._thread = threading.Thread(target=self._run, name='sync', daemon=True)

    # from other threads

    def start(self) -> None:
        """Begin with everything."""
        self._queue.add(None)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """Tell nothing more; wait for what is being told, ``timeout`` seconds at most."""
        self._queue.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_attempted(self, timeout: float | None = None) -> bool:
        """Wait until everything has been looked at and told once, or could not be."""
        return self._attempted.wait(timeout)

    def changed(self, instance_uuid: str | None) -> None:
        """Something has changed of this guest, or None: whatever may have."""
        self._queue.add(instance_uuid)

    def ensure(
        self,
        instance_uuid: str,
        consoles: Sequence[objects.ConsoleConnection],
        timeout: float,
        *,
        anew: bool = False,
    ) -> None:
        """Wait until the managers know that the guest has these consoles, ``timeout`` seconds at most.

        :param anew: they turned out not to know what they had acknowledged
        """
        if anew:
            self._reporter.distrust(instance_uuid)
        if not self._reporter.knows(instance_uuid, consoles):
            self._queue.add(instance_uuid)
            self._reporter.wait_known(instance_uuid, consoles, timeout)

    def contested(self, instance_uuid: str, host: str, port: int) -> bool:
        """Whether another guest has this place of a guest's console too, so that it leads to either of them.

        :raises HypervisorUnreachable: it can't be said
        """
        for other in self._port_conflicts.others(instance_uuid, host, port):
            try:
                theirs = self._driver.list_consoles(other)
            except (exception.InstanceNotFound, exception.InstanceNotReady):
                continue
            if any((console.host, console.port) == (host, port) for console in theirs):
                LOG.error('guests %s and %s have the same place for consoles', instance_uuid, other)
                return True
        return False

    def without_contested(
        self, consoles: Sequence[objects.ConsoleConnection]
    ) -> list[objects.ConsoleConnection]:
        """The consoles that no other guest has the place of.

        :raises HypervisorUnreachable: it can't be said
        """
        return [
            console
            for console in consoles
            if not self.contested(console.instance_uuid, console.host, console.port)
        ]

    # the thread: one guest

    def _run(self) -> None:
        while (due := self._queue.take()) is not None:
            compare = due.pop(None, None)
            self._guests({key: repeated for key, repeated in due.items() if key is not None})
            if compare is not None:
                self._everything(compare)

    def _guests(self, due: dict[str, bool]) -> None:
        """Look at guests and tell. When the managers can't be reached, the rest waits with the first."""
        reachable = True
        for instance_uuid, repeated in due.items():
            if not reachable or self._queue.closed:
                self._queue.add(instance_uuid, repeated=repeated)
                continue
            seen = self._look(instance_uuid)
            if seen is not None:
                reachable = self._tell(instance_uuid, seen, repeated)
        self._metrics.waiting(len(self._queue))

    def _look(self, instance_uuid: str) -> Seen:
        """What the guest has now. If that can't be said, it is looked at again later."""
        seen: Seen = None
        try:
            consoles, seen = self._look_at(instance_uuid)
            for other in self._port_conflicts.put(instance_uuid, consoles):
                self._queue.add(other)
        except exception.InstanceNotReady:
            # an event says when it is known whose it is; this is for one that was lost
            self._queue.later(instance_uuid, _ONCE_MORE)
        except exception.HypervisorUnreachable:
            self._put_off(instance_uuid)
        except Exception:  # a fault of the driver: the other guests have a right to be told of
            LOG.exception('guest %s could not be looked at', instance_uuid)
            self._put_off(instance_uuid)
        else:
            self._failures.pop(instance_uuid, None)
        if self._seen is not None:
            self._seen[instance_uuid] = seen
        return seen

    def _look_at(self, instance_uuid: str) -> tuple[list[objects.ConsoleConnection], Seen]:
        """The consoles that the guest has, and what can be told of it."""
        try:
            consoles = self._driver.list_consoles(instance_uuid)
        except exception.InstanceNotFound:
            return [], _Gone()
        return consoles, self.without_contested(consoles)

    def _tell(self, instance_uuid: str, seen: Known, repeated: bool) -> bool:
        """:returns: whether the managers can be reached"""
        try:
            if isinstance(seen, _Gone):
                self._reporter.clean(instance_uuid)
            else:
                self._reporter.define(instance_uuid, seen)
        except exception.ConsoledException as exc:
            return self._not_told(instance_uuid, exc)
        self._unanswered = 0
        if not repeated:
            self._queue.later(instance_uuid, backoff.jittered(_ONCE_MORE), repeated=True)
        return True

    # the thread: all guests

    def _everything(self, repeated: bool) -> None:
        """Compare all guests with what the managers know; what changes meanwhile goes first."""
        self._seen = {}
        try:
            self._look_at_all()
        except exception.HypervisorUnreachable:
            LOG.warning('the hypervisor does not answer; nothing is concluded from that')
            self._put_off(None)
        except Exception:  # a fault here must not end the thread
            LOG.exception('the guests could not be looked at')
            self._put_off(None)
        else:
            self._failures.pop(None, None)
            self._tell_all(self._seen, repeated)
        self._seen = None
        self._attempted.set()

    def _look_at_all(self) -> None:
        """:raises HypervisorUnreachable: it does not answer; one guest alone may"""
        assert self._seen is not None
        for instance_uuid in self._driver.list_instances():
            self._guests(self._queue.take_guests())
            if instance_uuid not in self._seen and self._look(instance_uuid) is None:
                self._driver.ping()
        self._guests(self._queue.take_guests())

    def _tell_all(self, seen: dict[str, Seen], repeated: bool) -> None:
        guests = {uuid: found for uuid, found in seen.items() if not isinstance(found, _Gone)}
        self._port_conflicts.keep(guests)
        try:
            answer = self._reporter.define_host(guests)
        except exception.ConsoledException as exc:
            self._not_told(None, exc)
            return
        self._unanswered = 0
        LOG.log(
            logging.INFO if answer else logging.DEBUG,
            'compared with the managers: %d guests, of which %d had changed; %d retired',
            len(guests),
            answer.changed,
            answer.retired,
        )
        self._metrics.synced(len(guests))
        self._queue.later(None, self._next_comparison(repeated), repeated=True)

    def _next_comparison(self, repeated: bool) -> float:
        """Seconds until all guests are compared again."""
        interval: float = self._conf.compute.sync_interval
        if not repeated:
            self._spread = False
            interval = min(interval, _ONCE_MORE)
        elif not self._spread:
            # hosts that started together, or found the bus again together, do not go on together
            self._spread = True
            return backoff.anywhere(interval)
        return backoff.jittered(interval)

    # what goes wrong

    def _put_off(self, key: Key) -> None:
        """Look at it again after a pause."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self._queue.later(key, backoff.after(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    def _not_told(self, key: Key, error: exception.ConsoledException) -> bool:
        """Tell it again when that may help.

        :returns: whether the managers can be reached
        """
        what = 'of all guests' if key is None else f'of guest {key}'
        if error.retryable:
            self._unanswered += 1
            LOG.warning('the managers could not be told %s: %s', what, error)
            self._queue.add(key)  # by then it is looked at anew: the newest state is told
            self._queue.pause(backoff.after(self._unanswered, _FIRST_PAUSE, _LONGEST_PAUSE))
            return False
        LOG.error('the managers refuse what they are told %s: %s', what, error)
        if isinstance(error, exception.InternalError):
            self._put_off(key)
        elif key is None:  # the same would be refused again, until something changes
            self._queue.later(None, self._conf.compute.sync_interval)
        return True
