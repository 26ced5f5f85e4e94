# SPDX-License-Identifier: Apache-2.0
"""Reports to the managers: the calls, and the consoles that the managers have acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.metrics import Metrics
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import HostChanges

T = TypeVar('T')

Consoles = Sequence[objects.ConsoleConnection]
# host, port, console type, base URL, options
_Values = tuple[str, int, str, str | None, frozenset[tuple[str, str | None]]]


class Reporter:
    """Reports the state of instances by RPC calls, from one thread. Other threads wait for acknowledgements.

    The ``report_*`` methods raise the errors of the call (``ConsoledException``).
    """

    def __init__(self, conf: cfg.ConfigOpts, manager: ConsoleAuthAPI, metrics: Metrics) -> None:
        self._conf = conf
        self._manager = manager
        self._metrics = metrics
        self._acknowledged: dict[str, set[_Values]] = {}
        self._changed = threading.Condition()

    def report_consoles(self, instance_uuid: str, consoles: Consoles) -> None:
        """Report that an instance has these consoles and no others."""
        console_list = objects.ConsoleConnectionList(objects=list(consoles))
        self._call(
            'define_consoles',
            lambda: self._manager.define_consoles(
                RequestContext(), instance_uuid, self._conf.host, console_list, wait=True
            ),
        )
        self._acknowledge({instance_uuid: consoles})

    def report_gone(self, instance_uuid: str) -> None:
        """Report that an instance is no longer on this host."""
        self.forget(instance_uuid)
        self._call(
            'clean_console_auths_for_instance',
            lambda: self._manager.clean_console_auths_for_instance(
                RequestContext(), instance_uuid, self._conf.host, wait=True
            ),
        )

    def report_host(self, instances: Mapping[str, Consoles | None]) -> HostChanges:
        """Report that these instances and no others are on this host.

        :param instances: consoles by instance UUID; None if they are not known now: the managers keep what
            they have
        :returns: how many instances the managers ``retired`` and ``changed``
        """
        known = {uuid: consoles for uuid, consoles in instances.items() if consoles is not None}
        all_consoles = [console for consoles in known.values() for console in consoles]
        counts: HostChanges = self._call(
            'define_host',
            lambda: self._manager.define_host(
                RequestContext(),
                self._conf.host,
                list(instances),
                objects.ConsoleConnectionList(objects=all_consoles),
                [uuid for uuid, consoles in instances.items() if consoles is None],
            ),
        )
        with self._changed:
            for instance_uuid in self._acknowledged.keys() - instances.keys():
                del self._acknowledged[instance_uuid]
        self._acknowledge(known)
        return counts

    def _call(self, method: str, call: Callable[[], T]) -> T:
        code = 'ok'
        try:
            return call()
        except exception.ConsoledException as exc:
            code = exc.code
            raise
        finally:
            self._metrics.count_report(method, code)

    def _acknowledge(self, reported: Mapping[str, Consoles]) -> None:
        with self._changed:
            for instance_uuid, consoles in reported.items():
                self._acknowledged[instance_uuid] = _values(consoles)
            self._changed.notify_all()

    def forget(self, instance_uuid: str) -> None:
        """Forget the acknowledged report of an instance: the managers may have forgotten it too."""
        with self._changed:
            self._acknowledged.pop(instance_uuid, None)

    def is_acknowledged(self, instance_uuid: str, consoles: Consoles) -> bool:
        """Return whether the last acknowledged report of an instance had these consoles."""
        with self._changed:
            return self._acknowledged.get(instance_uuid) == _values(consoles)

    def wait_acknowledged(self, instance_uuid: str, consoles: Consoles, timeout: float) -> bool:
        """Wait until ``is_acknowledged``, for at most ``timeout`` seconds; return whether it is."""
        wanted = _values(consoles)
        with self._changed:
            return self._changed.wait_for(lambda: self._acknowledged.get(instance_uuid) == wanted, timeout)


def _values(consoles: Consoles) -> set[_Values]:
    return {
        (
            console.host,
            console.port,
            console.console_type,
            console.access_url_base,
            frozenset(console.options.items()),
        )
        for console in consoles
    }
