# SPDX-License-Identifier: Apache-2.0
"""What configuration files set, as written: which file sets an option, and which options nobody knows.

oslo.config reads options by name, so a misspelled one is never seen. Values are not kept: they may
be secret.
"""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from oslo_config import cfg

DEFAULT = 'DEFAULT'

# Groups of libraries that register them only when they are used, or read by other programs on this host.
_OTHERS = ('cache', 'profiler', 'profiler_jaeger', 'profiler_otlp')
_OTHERS_PREFIX = 'oslo_'


class Setting(NamedTuple):
    """A line of a file that sets an option."""

    file: str
    group: str
    name: str


def settings(conf: cfg.ConfigOpts) -> list[Setting]:
    """Return what the configuration files of ``conf`` set, in the order in which they are read.

    :raises cfg.ConfigFileParseError: a file has changed since, and cannot be parsed
    :raises OSError: the same, and it cannot be read
    """
    found = []
    for file in _files(conf):
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        found += [
            Setting(file, normalized(group), name) for group, names in sections.items() for name in names
        ]
    return found


def file_of(conf: cfg.ConfigOpts, group: str, name: str) -> str:
    """Return the file that sets an option, the last one if several do; '' if none does."""
    try:
        files = [each.file for each in settings(conf) if (each.group, each.name) == (normalized(group), name)]
    except (cfg.Error, OSError, ValueError):
        return ''
    return files[-1] if files else ''


def unknown(conf: cfg.ConfigOpts) -> list[str]:
    """Return a sentence for each option in the files that no program of consoled knows, and so none reads."""
    known: dict[str, set[str]] = {}
    for group, names in _known(conf):
        known.setdefault(group, set()).update(names)
    found: dict[str, None] = {}
    for file, group, name in settings(conf):
        if group not in known:
            if group not in _OTHERS and not group.startswith(_OTHERS_PREFIX):
                found[f'[{group}] in {file} is not a group of options{_guess(group, known)}'] = None
        elif name not in known[group]:
            there = [f'[{other}] {name}' for other, names in known.items() if name in names]
            advice = f': did you mean {there[0]}?' if there else _guess(name, known[group])
            found[f'[{group}] {name} in {file} is not an option{advice}'] = None
    return list(found)


def normalized(group: str) -> str:
    """Return the name of a group as oslo.config compares it: case-insensitively."""
    return DEFAULT if group.upper() == DEFAULT else group.lower()


def options(conf: cfg.ConfigOpts) -> Iterator[tuple[str, cfg.Opt]]:
    """Yield all options that are registered on ``conf``, with their groups."""
    for info, group in conf._all_opt_infos():  # no public method of the library lists them
        yield DEFAULT if group is None else normalized(group.name), info['opt']


def _known(conf: cfg.ConfigOpts) -> Iterator[tuple[str, set[str]]]:
    """Yield groups with names of options, old names included."""
    for group, option in options(conf):
        yield group, {option.name, option.dest}
        for old in option.deprecated_opts:
            name = old.name or option.dest
            yield normalized(old.group or group), {name, name.replace('-', '_')}


def _guess(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f': did you mean {close[0]}?' if close else '.'


def _files(conf: cfg.ConfigOpts) -> list[str]:
    directories = [pathlib.Path(path) for path in conf.config_dir or ()]
    inside = [str(path) for directory in directories for path in sorted(directory.glob('*.conf'))]
    return [*(conf.config_file or ()), *inside]
