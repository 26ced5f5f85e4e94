# SPDX-License-Identifier: Apache-2.0
"""Which options of the configuration files are deprecated. Values are not looked at: they may be secret."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib import metadata

from oslo_config import cfg

# Each lists the options of a library, as for the sample configuration; oslo.cache may be missing.
_NAMESPACES = ('consoled', 'oslo.cache', 'oslo.log', 'oslo.messaging', 'oslo.service.service')

_DEFAULT = 'DEFAULT'

# Group and name of an option, as a file has them.
OptionName = tuple[str, str]


def in_files(conf: cfg.ConfigOpts) -> list[str]:
    """The deprecated options that the files of ``conf`` set, each in a sentence."""
    return find(_set_in(conf.config_file), _known(conf))


def find(names_set: Collection[OptionName], known: Iterable[tuple[str, cfg.Opt]]) -> list[str]:
    """Those of the options at ``names_set`` that are deprecated, each in a sentence.

    :param known: options with their groups
    """
    found = []
    for group, option in known:
        names = {(group, option.dest), *_former(group, option)}
        for former in sorted(_former(group, option) & set(names_set)):
            found.append(f'{_shown(former)} is now called {_shown((group, option.dest))}.')
        if option.deprecated_for_removal and names & set(names_set):
            reason = ' '.join((option.deprecated_reason or '').split()).rstrip('.')
            why = f': {reason}' if reason else ''
            found.append(f'{_shown((group, option.dest))} will be removed{why}.')
    return sorted(found)


def _former(group: str, option: cfg.Opt) -> set[OptionName]:
    """The deprecated names of an option."""
    names = {
        (_normal(former.group or group), former.name or option.dest) for former in option.deprecated_opts
    }
    return names - {(group, option.dest)}


def _shown(place: OptionName) -> str:
    return f'[{place[0]}] {place[1]}'


def _normal(group: str) -> str:
    """A group's name in files is taken without regard to case, as oslo.config does."""
    return _DEFAULT if group.upper() == _DEFAULT else group.lower()


def _set_in(files: Iterable[str]) -> set[OptionName]:
    names_set: set[OptionName] = set()
    for name in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(name, sections).parse()
        names_set.update((_normal(group), key) for group, values in sections.items() for key in values)
    return names_set


def _known(conf: cfg.ConfigOpts) -> Iterator[tuple[str, cfg.Opt]]:
    """The options that ``conf`` has, as far as their owners list them."""
    for namespace in _NAMESPACES:
        for point in metadata.entry_points(group='oslo.config.opts', name=namespace):
            for owner, options in point.load()():
                group = _DEFAULT if owner is None else getattr(owner, 'name', owner)
                if group == _DEFAULT or group in conf:
                    here = conf if group == _DEFAULT else conf[group]
                    yield from ((_normal(group), option) for option in options if option.dest in here)
