# SPDX-License-Identifier: Apache-2.0
"""When the reconciler reports a state once more, and when it compares all instances."""

from __future__ import annotations

from oslo_config import cfg

from consoled import backoff

# Seconds after which a report is repeated once. An earlier report of this host, or a report of another host
# about the same instance, may be carried out late and undo it; and a hypervisor that has just started may
# still be finding its instances.
RESYNC_DELAY = 30.0


class ComparisonSchedule:
    """Times of the periodic comparison of all instances with what the managers know.

    A comparison for a change (at the start, or after a lost connection) is repeated once, soon. The next one
    comes at a random moment of ``[compute] sync_interval``, and then one every interval: hosts that started
    together, or lost the same bus, do not stay in step.

    :param resync_delay: seconds before the comparison for a change is repeated
    """

    def __init__(self, conf: cfg.ConfigOpts, resync_delay: float) -> None:
        self._conf = conf
        self._resync_delay = resync_delay
        self._spread = False

    def next_delay(self, *, resync: bool) -> float:
        """Return the seconds until the next comparison.

        :param resync: whether the comparison that has just been made was only a repetition
        """
        interval: float = self._conf.compute.sync_interval
        if not resync:
            self._spread = False
            return backoff.jittered(min(interval, self._resync_delay))
        if not self._spread:
            self._spread = True
            return backoff.anywhere(interval)
        return backoff.jittered(interval)
