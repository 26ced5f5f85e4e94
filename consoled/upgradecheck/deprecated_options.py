# SPDX-License-Identifier: Apache-2.0
"""Deprecated options in the configuration files. Their values are ignored, since they may be secret."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from oslo_config import cfg

from consoled.conf import written

# Group and name of an option, as written in a file.
OptionName = tuple[str, str]


def in_files(conf: cfg.ConfigOpts) -> list[str]:
    """Return a sentence for each deprecated option that the configuration files of ``conf`` set."""
    return find({(each.group, each.name) for each in written.settings(conf)}, written.options(conf))


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
    names = {
        (written.normalized(old.group or group), old.name or option.dest) for old in option.deprecated_opts
    }
    return names - {(group, option.dest)}


def _format(name: OptionName) -> str:
    return f'[{name[0]}] {name[1]}'
