# SPDX-License-Identifier: Apache-2.0
"""Read the options of a program from its command line and its configuration files."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pwd
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from oslo_config import cfg, types
from oslo_log import log

from consoled import conf as consoled_conf
from consoled import version
from consoled.conf import from_nova, written

LOG = logging.getLogger(__name__)

PROJECT = 'consoled'

# Where the files usually are. The library takes one that may not be entered for one without files.
_DIRECTORY = '/etc/consoled'

_NAMED = re.compile(r'\[([A-Za-z0-9_]+)\] ([a-z0-9_]+)')
_OPTION_IN_ERROR = re.compile(r'\AValue for option ([a-z0-9_-]{1,64}) ')

# At each stop amqp warns of every frame that arrives while a channel closes; oslo.messaging itself logs a
# connection that is really lost. alembic logs the dialect twice each time the schema is inspected.
_LOG_LEVELS = {'amqp': 'ERROR', 'alembic': 'WARN'}


def load(
    conf: cfg.ConfigOpts,
    argv: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    epilog: str | None = None,
) -> None:
    """Register every option on ``conf``, then parse the arguments and the configuration files.

    What these do not set is taken from Nova's files, if ``[nova] config_file`` is set.

    :param argv: arguments without the program's name
    :param prog: name of the program, which also names its second configuration file
    :param description: first paragraph of ``--help``
    :param epilog: last paragraph of ``--help``
    :raises cfg.Error: a file cannot be read or parsed, or the value of an option is invalid. The text names
        the file, and has nothing of what the file contains
    """
    log.register_options(conf)
    conf.set_default('default_log_levels', _default_log_levels())
    consoled_conf.register_opts(conf)
    with _valid_cli_options(), explained():
        conf(
            list(argv),
            project=PROJECT,
            prog=prog,
            version=version.VERSION,
            description=description,
            epilog=epilog,
            default_config_dirs=[],
        )
    directories = list(conf.config_dir or ())
    for directory in directories or ([] if conf.config_file else [_DIRECTORY]):
        check_directory(directory)
    from_nova.apply(conf)


def check_directory(path: str) -> None:
    """Check that files in a directory can be found, if there is one: the library would find none.

    :raises cfg.Error: they cannot
    """
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        raise cfg.Error(f'{path} cannot be read by {_user()}')


def check(conf: cfg.ConfigOpts) -> None:
    """Read every option once: oslo.config checks a value from a file only when it is first read.

    :raises cfg.Error: a value is invalid. The text names the option and the file, and never shows the value
        of a secret option, or of one that may be a URL with a password
    """
    for group, option in written.options(conf):
        try:
            value = (conf if group == written.DEFAULT else conf[group])[option.dest]
        except (cfg.Error, ValueError) as exc:
            raise cfg.Error(f'{where(conf, group, option.dest)} {reason(exc, option)}') from None
        # The library takes an empty value for none at all, which no code expects of an option with a default.
        if value is None and option.default is not None:
            raise cfg.Error(f'{where(conf, group, option.dest)} is empty: give it a value, or leave it out')


def where(conf: cfg.ConfigOpts, group: str, name: str) -> str:
    """Return the name of an option, with what sets it: ``[proxy] port (/etc/consoled.conf)``."""
    variable = f'OS_{group}__{name}'.upper()  # the library prefers it to the files
    source = variable if variable in os.environ else written.file_of(conf, group, name)
    source = source or from_nova.source(conf, group, name)
    return f'[{group}] {name} ({source})' if source else f'[{group}] {name}'


def located(conf: cfg.ConfigOpts, text: str) -> str:
    """Return the text with the file after the first option that it names, such as ``[proxy] port``.

    It may be there already: ``[proxy] port (/etc/consoled.conf)``, ``[vnc] enabled in /etc/nova.conf``.
    """
    found = _NAMED.search(text)
    if found is None or text.startswith((' (', ' in /'), found.end()):
        return text
    return text[: found.start()] + where(conf, found[1], found[2]) + text[found.end() :]


def identity(conf: cfg.ConfigOpts, **facts: object) -> str:
    """Return what to say of a program that is ready: ``consoled 1.0.0 host=a cell=b bus=c``.

    :param facts: what else it is to say, such as the addresses that it uses
    """
    facts = {'host': conf.host, 'cell': conf.cell.name, **facts, 'files': ','.join(conf.config_file or ())}
    return ' '.join(
        [str(conf.prog), version.VERSION, *(f'{name}={value}' for name, value in facts.items() if value)]
    )


# Called after each reload: oslo.log may have replaced the handlers of log lines.
after_reload: list[Callable[[], None]] = []


def reload(conf: cfg.ConfigOpts) -> bool:
    """Read the configuration files again, and apply the options that may change while a program runs.

    If they cannot be read, or a value is invalid, log why and keep all values.

    :returns: whether they were read
    """
    read, why = True, None
    try:
        with explained():
            again = _read_again(conf)
        from_nova.apply(again)
        check(again)
        with explained():
            conf.mutate_config_files()
        from_nova.apply(conf, mutable=True)
    except cfg.Error as exc:
        read, why = False, f'Not reloaded: {exc}'
    except log.LogConfigError as exc:  # it comes last, after the options have changed
        why = f'[DEFAULT] log_config_append: {exc.log_config} cannot be used'
    for call in after_reload:
        call()
    if why is not None:  # not in the handlers: oslo.log would add the error itself
        LOG.error('%s', why)
    return read


def _read_again(conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    """Return the same options with what the files say now. What the library reloads is in use at once."""
    again = cfg.ConfigOpts()
    for group, option in written.options(conf):
        if option.dest not in ('config_file', 'config_dir', 'config_source'):
            again.register_opt(option, None if group == written.DEFAULT else group)
    again([], default_config_files=conf.config_file or [], default_config_dirs=conf.config_dir or [])
    return again


class Reloading:
    """Configuration for oslo.service's launcher, whose SIGHUP reads the files again as ``reload`` does.

    The library's own method raises, with what the files contain: the launcher would log that, and under
    eventlet end.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conf, name)

    def mutate_config_files(self) -> None:
        """Read the files again, or log why not."""
        reload(self._conf)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise what goes wrong with the files as a ``cfg.Error`` that names the file and shows none of it.

    The library's own texts quote lines and values.
    """
    try:
        yield
    except cfg.ConfigFilesNotFoundError as exc:
        raise cfg.Error(f'{", ".join(exc.config_files)} does not exist') from None
    except cfg.ConfigFilesPermissionDeniedError as exc:
        raise cfg.Error(f'{", ".join(exc.config_files)} cannot be read by {_user()}') from None
    except cfg.ConfigDirNotFoundError as exc:
        raise cfg.Error(f'the directory {exc.config_dir} does not exist') from None
    except cfg.ConfigFileParseError as exc:
        parsing = exc.__context__  # the parser's own error
        line = f'line {parsing.lineno}: {parsing.msg}' if isinstance(parsing, cfg.ParseError) else 'a line'
        raise cfg.Error(f'{exc.config_file} cannot be parsed: {line}') from None
    except OSError as exc:
        raise cfg.Error(f'{exc.filename} cannot be read: {exc.strerror}') from None
    except UnicodeDecodeError as exc:
        raise cfg.Error(f'{_parsed_file(exc)} is not text in UTF-8') from None
    except (cfg.Error, ValueError) as exc:
        found = _OPTION_IN_ERROR.search(str(exc))
        raise cfg.Error(f'the value of {found[1] if found else "an option"} is not valid') from None


def _parsed_file(error: Exception) -> str:
    """Return the file that was being parsed; the error itself does not say."""
    parsers = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((each.filename for each in parsers if isinstance(each, cfg.ConfigParser)), 'a file')


@contextlib.contextmanager
def _valid_cli_options() -> Iterator[None]:
    """Raise a ``cfg.Error`` for a bad value, in a file, of an option that the command line has too.

    The library prints that value and exits, with another code than for wrong usage.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as exc:
        found = re.match(r'argument --([a-z0-9_-]{1,64}): ', printed.getvalue())
        if exc.code == 1 and found:
            printed.truncate(0)
            raise cfg.Error(f'[DEFAULT] {found[1]} is not valid') from None
        raise
    finally:
        sys.stderr.write(printed.getvalue())


def reason(error: Exception, option: cfg.Opt) -> str:
    """Return what is wrong with the value of an option, without anything that may be secret."""
    if isinstance(error, cfg.TemplateSubstitutionError | cfg.NoSuchOptError):
        return 'refers with $ to an option that does not exist; write $$ for a dollar sign'
    found = error.__context__ if isinstance(error, cfg.ConfigSourceValueError) else error
    text = str(found)
    if isinstance(option.type, types.Integer | types.Float) and 'hould be' not in text:
        return f'must be {"an integer" if isinstance(option.type, types.Integer) else "a number"}'
    if option.secret or isinstance(option.type, types.URI) or '@' in text or '://' in text:
        return 'is not valid'
    return f'is not valid: {text}'


def _user() -> str:
    try:
        return f'user {pwd.getpwuid(os.geteuid()).pw_name}'
    except KeyError:
        return f'user {os.geteuid()}'


def _default_log_levels() -> list[str]:
    levels = dict(level.split('=') for level in log.get_default_log_levels())
    return [f'{name}={level}' for name, level in (levels | _LOG_LEVELS).items()]
