# SPDX-License-Identifier: Apache-2.0
"""What the managers are told of the guests, and what of it they have acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from consoled import exception, objects
from consoled.compute.metrics import Metrics
from consoled.context import RequestContext
from consoled.rpc.client import ConsoleAuthAPI
from consoled.rpc.replies import HostChanges

Consoles = Sequence[objects.ConsoleConnection]


class Reporter:
    """Tells by calls, from one thread; others can wait for what they need to be known.

    Its methods raise what the calls do.
    """

    def __init__(self, conf: cfg.ConfigOpts, manager: ConsoleAuthAPI, metrics: Metrics) -> None:
        self._conf = conf
        self._manager = manager
        self._metrics = metrics
        self._told: dict[str, set[Any]] = {}
        self._changed = threading.Condition()

    def define(self, instance_uuid: str, consoles: Consoles) -> None:
        """These, and only these, are the guest's consoles."""
        found = objects.ConsoleConnectionList(objects=list(consoles))
        self._call(
            'define_consoles',
            lambda: self._manager.define_consoles(
                RequestContext(), instance_uuid, self._conf.host, found, wait=True
            ),
        )
        self._note({instance_uuid: consoles})

    def clean(self, instance_uuid: str) -> None:
        """The guest is gone from this host."""
        self.distrust(instance_uuid)
        self._call(
            'clean_console_auths_for_instance',
            lambda: self._manager.clean_console_auths_for_instance(
                RequestContext(), instance_uuid, self._conf.host, wait=True
            ),
        )

    def define_host(self, guests: Mapping[str, Consoles | None]) -> HostChanges:
        """These, and only these, are the guests of this host; None: nothing is said of the guest's consoles.

        :returns: counts of guests ``retired`` and ``changed``
        """
        known = {uuid: consoles for uuid, consoles in guests.items() if consoles is not None}
        every = [console for consoles in known.values() for console in consoles]
        answer: HostChanges = self._call(
            'define_host',
            lambda: self._manager.define_host(
                RequestContext(),
                self._conf.host,
                list(guests),
                objects.ConsoleConnectionList(objects=every),
                [uuid for uuid, consoles in guests.items() if consoles is None],
            ),
        )
        with self._changed:
            for instance_uuid in self._told.keys() - guests.keys():
                del self._told[instance_uuid]
        self._note(known)
        return answer

    def _call(self, method: str, call: Callable[[], Any]) -> Any:
        code = 'ok'
        try:
            return call()
        except exception.ConsoledException as exc:
            code = exc.code
            raise
        finally:
            self._metrics.told(method, code)

    def _note(self, told: Mapping[str, Consoles]) -> None:
        with self._changed:
            for instance_uuid, consoles in told.items():
                self._told[instance_uuid] = _values(consoles)
            self._changed.notify_all()

    def distrust(self, instance_uuid: str) -> None:
        """The managers may not know any more what they have acknowledged of this guest."""
        with self._changed:
            self._told.pop(instance_uuid, None)

    def knows(self, instance_uuid: str, consoles: Consoles) -> bool:
        """Whether managers have acknowledged these consoles, and no others since."""
        with self._changed:
            return self._told.get(instance_uuid) == _values(consoles)

    def wait_known(self, instance_uuid: str, consoles: Consoles, timeout: float) -> bool:
        """Wait until they have, ``timeout`` seconds at most."""
        wanted = _values(consoles)
        with self._changed:
            return self._changed.wait_for(lambda: self._told.get(instance_uuid) == wanted, timeout)


def _values(consoles: Consoles) -> set[Any]:
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
