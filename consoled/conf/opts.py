# SPDX-License-Identifier: Apache-2.0
"""Entry point for oslo-config-generator: all options of consoled."""

import itertools

from oslo_config import cfg

from consoled import conf


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """Return (group, options) pairs. The libraries list their own options."""
    groups: list[tuple[str | None, list[cfg.Opt]]] = []
    for module in conf.MODULES:
        opts = getattr(module, 'OPTS', [])
        pairs = opts.items() if isinstance(opts, dict) else [(getattr(module, 'GROUP', None), opts)]
        groups.extend((group, list(items)) for group, items in pairs if items)
    return [
        (key, list(itertools.chain.from_iterable(items for _, items in rows)))
        for key, rows in itertools.groupby(
            sorted(groups, key=lambda pair: pair[0] or ''), key=lambda pair: pair[0]
        )
    ]
