# SPDX-License-Identifier: Apache-2.0
"""Read a nova.conf as it is, and give its values to options of consoled that consoled's files do not set."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from oslo_config import cfg, types
from oslo_utils import netutils

from consoled.conf import files, written
from consoled.nova import remarks
from consoled.nova.options import OLD_NAMES, OPTIONS, Name
from consoled.nova.settings import TABLE, Own, Row

LOG = logging.getLogger(__name__)

_UNKNOWN_REFERENCE = (
    'refers with $ to an option that is not in these files, and whose default only Nova knows: add that '
    'option to a file of your own in [nova] config_file; $$ is a dollar sign'
)
_LONGEST_SHOWN = 60  # characters of a value in a log line
_NAME = re.compile(r'[a-z][a-z0-9_]*')


class NovaConf:
    """The options of ``OPTIONS`` in files of Nova.

    :param paths: files, and directories with ``*.conf``, in the order in which Nova reads them
    :raises cfg.Error: a file cannot be read, or a value is invalid. The text names the file and the option,
        and has nothing that may be secret
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._conf = cfg.ConfigOpts()
        paths = list(paths)
        directories = [path for path in paths if os.path.isdir(path)]
        for path in directories:
            files.check_directory(path)
        with files.explained():
            self._conf(
                [],
                project='nova',
                default_config_files=[path for path in paths if path not in directories],
                default_config_dirs=directories,
                use_env=False,  # OS_DATABASE__CONNECTION there is consoled's own database
            )
            self._files = {(each.group, each.name): each.file for each in written.settings(self._conf)}
        self._register()
        self._values = dict(self._read())

    def get(self, group: str, name: str) -> Any:
        """Return the value of an option: Nova's default if the files do not set it."""
        return self._values[group, name]

    def is_set(self, group: str, name: str) -> bool:
        """Return whether the files set an option, by any of its names."""
        return self._found((group, name)) is not None

    def where(self, group: str, name: str) -> str:
        """Return the option as the files name it, with the file: ``[vnc] enabled in /etc/nova.conf``."""
        found = self._found((group, name)) or (group, name)
        file = self._files.get(found)
        return f'[{found[0]}] {found[1]} in {file}' if file else f'[{found[0]}] {found[1]}'

    def _found(self, option: Name) -> Name | None:
        names = (option, *OLD_NAMES.get(option, ()))
        return next((name for name in names if name in self._files), None)

    def _register(self) -> None:
        for group, options in OPTIONS.items():
            for option in options:
                self._conf.register_opt(_named(option, option.name, option.default), _group(group))
                for where, name in OLD_NAMES.get((group, option.name), ()):
                    self._conf.register_opt(_named(option, name), _group(where))
        # what values may refer to with $: anything in the files, and what Nova finds itself
        self._conf.set_default('host', socket.gethostname())
        for where, name in self._files:
            if _NAME.fullmatch(name) and name not in self._options(where):
                self._conf.register_opt(cfg.StrOpt(name), _group(where))
        if 'my_ip' not in self._conf:
            self._conf.register_opt(cfg.StrOpt('my_ip', default=netutils.get_my_ipv4()))

    def _options(self, group: str) -> Any:
        if group != written.DEFAULT and group not in self._conf:
            return {}
        return self._conf if group == written.DEFAULT else self._conf[group]

    def _read(self) -> Iterator[tuple[Name, Any]]:
        for group, options in OPTIONS.items():
            for option in options:
                name = self._found((group, option.name))
                yield (group, option.name), option.default if name is None else self._value(name, option)

    def _value(self, name: Name, option: cfg.Opt) -> Any:
        group, dest = name
        try:
            value = self._options(group)[dest]
        except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
            raise cfg.Error(f'{self.where(*name)} {_UNKNOWN_REFERENCE}') from None
        except (cfg.Error, ValueError) as exc:
            raise cfg.Error(f'{self.where(*name)} {files.reason(exc, option)}') from None
        return option.default if value is None else value


def _group(name: str) -> str | None:
    """Return the name of a group as oslo.config takes it: None is ``[DEFAULT]``."""
    return None if name == written.DEFAULT else name


def _named(option: cfg.Opt, name: str, default: Any = None) -> cfg.Opt:
    return cfg.Opt(name, type=option.type, secret=option.secret, default=default)


class Taken(NamedTuple):
    """An option of consoled with the value that it takes from Nova."""

    row: Row
    option: cfg.Opt
    value: Any


class Settings(NamedTuple):
    """What is taken from the files of Nova.

    :ivar unusable: a sentence for each option of Nova that has no effect here
    """

    nova: NovaConf
    taken: list[Taken]
    unusable: list[str]

    def summary(self) -> str:
        """Return what is taken, for the log: values that may be secret, or are long, are left out."""
        return ', '.join(map(_shown, self.taken))


def read(conf: cfg.ConfigOpts) -> Settings:
    """Read ``[nova] config_file``, and decide what options of consoled take from it. Nothing is changed.

    :raises cfg.Error: a file cannot be read, or a value is invalid
    """
    nova = NovaConf(conf.nova.config_file)
    options = {(group, option.dest): option for group, option in written.options(conf)}
    own = Own(frozenset(name for name in options if _is_own(conf, *name)), _proxies(conf))
    kept = own.names | {row.ours for row in TABLE if row.together and _sets_one_of(row.together, own)}
    taken = []
    for row in TABLE:
        value = None if row.ours in kept else row.value(nova, own)
        if value is not None:
            taken.append(Taken(row, options[row.ours], value))
    return Settings(nova, taken, list(remarks.unusable(nova, own, nova.where)))


def apply(conf: cfg.ConfigOpts, *, mutable: bool = False) -> Settings:
    """Give consoled's options the values that they take from Nova, as defaults.

    :param mutable: change only the options that may change while a program runs
    :raises cfg.Error: a file cannot be read, or a value is invalid. Nothing has been changed then
    """
    found = read(conf)
    values = {each.row.ours: _checked(found.nova, each) for each in found.taken}
    if mutable:
        _warn_of_others(conf, found)
    options = {(group, option.dest): option for group, option in written.options(conf)}
    for row in TABLE:
        if mutable and not options[row.ours].mutable:
            continue
        group, name = row.ours
        if row.ours in values:
            conf.set_default(name, values[row.ours], _group(group))
        elif mutable:
            conf.clear_default(name, _group(group))
    return found


def source(conf: cfg.ConfigOpts, group: str, name: str) -> str:
    """Return the options of Nova from which an option of consoled has its value; '' if there are none."""
    try:
        found = read(conf)
    except cfg.Error:
        return ''
    for each in found.taken:
        if each.row.ours == (written.normalized(group), name):
            return _theirs(found.nova, each.row)
    return ''


def _warn_of_others(conf: cfg.ConfigOpts, found: Settings) -> None:
    """Log a warning for each value that has changed, and applies after a restart only."""
    for row, option, value in found.taken:
        group, name = row.ours
        options = conf if group == written.DEFAULT else conf[group]
        if not option.mutable and options[name] != value:
            LOG.warning('Restart to apply %s, taken for [%s] %s', _theirs(found.nova, row), group, name)


def _checked(nova: NovaConf, taken: Taken) -> Any:
    """Return a value with its dollar signs escaped, because oslo.config substitutes in defaults too.

    :raises cfg.Error: it is not one that the option of consoled can have
    """
    try:
        taken.option.type(taken.value)
    except ValueError as exc:
        group, name = taken.row.ours
        why = files.reason(exc, taken.option)
        raise cfg.Error(f'{_theirs(nova, taken.row)}, taken for [{group}] {name}, {why}') from None
    return _escaped(taken.value)


def _escaped(value: Any) -> Any:
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return value.replace('$', '$$') if isinstance(value, str) else value


def _theirs(nova: NovaConf, row: Row) -> str:
    names = [name for name in row.theirs if nova.is_set(*name)] or row.theirs[:1]
    return ', '.join(nova.where(*name) for name in names)


def _is_own(conf: cfg.ConfigOpts, group: str, name: str) -> bool:
    """Return whether consoled's files, its environment or its arguments set an option."""
    try:
        location = conf.get_location(name, _group(group))
    except (cfg.Error, ValueError):
        return True  # to a value that is invalid, which the check of all options says
    return location is not None and location.location.is_user_controlled


def _proxies(conf: cfg.ConfigOpts) -> list[str] | None:
    try:
        found: list[str] | None = conf.nova.proxies
    except (cfg.Error, ValueError):
        return None  # the check of all options says that it is invalid
    return found


def _sets_one_of(together: str, own: Own) -> bool:
    return any(row.ours in own.names for row in TABLE if row.together == together)


def _shown(taken: Taken) -> str:
    group, name = taken.row.ours
    text = ','.join(map(str, taken.value)) if isinstance(taken.value, list) else str(taken.value)
    secret = taken.option.secret or isinstance(taken.option.type, types.URI) or '://' in text
    return f'[{group}] {name}' + ('' if secret or len(text) > _LONGEST_SHOWN else f' = {text}')
