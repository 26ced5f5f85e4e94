# SPDX-License-Identifier: Apache-2.0
"""Deprecated options in the configuration files. Their values are ignored, since they may be secret."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib import metadata

from oslo_config import cfg

# Entry points that list the options of a library, as in the sample configuration. oslo.cache is an extra.
_NAMESPACES = ('consoled', 'oslo.cache', 'oslo.log', 'oslo.messaging', 'oslo.service.service')

_DEFAULT = 'DEFAULT'

# Group and name of an option, as written in a file.
OptionName = tuple[str, str]


def in_files(conf: cfg.ConfigOpts) -> list[str]:
    """Return a sentence for each deprecated option that the configuration files of ``conf`` set."""
    return find(_set_in(conf.config_file), _known(conf))


def find(names_set: Collection[OptionName], known: Iterable[tuple[str, cfg.Opt]]) -> list[str]:
    """Return a sentence for each deprecated option among ``names_set``.

    :param names_set: names that the files set
    :param known: all options, with their groups
    """
    found = []
    for group, option in known:
        old_names = _old_names(group, option)
        for name in sorted(old_names & set(names_set)):
            found.append(f'{_format(name)} is now called {_format((group, option.dest))}.')
        if option.deprecated_for_removal and {(group, option.dest), *old_names} & set(names_set):
            reason = ' '.join((option.deprecated_reason or '').split()).rstrip('.')
            why = f': {reason}' if reason else ''
            found.append(f'{_format((group, option.dest))} will be removed{why}.')
    return sorted(found)


def _old_names(group: str, option: cfg.Opt) -> set[OptionName]:
    """Return the deprecated names of an option."""
    names = {(_normalized(old.group or group), old.name or option.dest) for old in option.deprecated_opts}
    return names - {(group, option.dest)}


def _format(name: OptionName) -> str:
    return f'[{name[0]}] {name[1]}'


def _normalized(group: str) -> str:
    """Return the name of a group as oslo.config compares it: case-insensitively."""
    return _DEFAULT if group.upper() == _DEFAULT else group.lower()


def _set_in(files: Iterable[str]) -> set[OptionName]:
    names_set: set[OptionName] = set()
    for path in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(path, sections).parse()
        names_set.update((_normalized(group), key) for group, values in sections.items() for key in values)
    return names_set


def _known(conf: cfg.ConfigOpts) -> Iterator[tuple[str, cfg.Opt]]:
    """Yield the options registered on ``conf`` that their libraries list, with their groups."""
    for namespace in _NAMESPACES:
        for point in metadata.entry_points(group='oslo.config.opts', name=namespace):
            for owner, options in point.load()():
                group = _DEFAULT if owner is None else getattr(owner, 'name', owner)
                if group == _DEFAULT or group in conf:
                    registered = conf if group == _DEFAULT else conf[group]
                    for option in options:
                        if option.dest in registered:
                            yield _normalized(group), option
