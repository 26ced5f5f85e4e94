# SPDX-License-Identifier: Apache-2.0
"""Write the sample configuration: ``python tools/make_sample.py [FILE]``.

oslo-config-generator lists all options of the libraries with the libraries' defaults. This tool omits the
options that consoled does not use, and shows the defaults that consoled sets. The first line of the sample
names the versions of the libraries, because other versions may have other options.
"""

from __future__ import annotations

import io
import pathlib
import re
import sys
from importlib import metadata

from consoled.cmd import _backend, _daemon

_backend.select()  # as the programs do; without it oslo.service warns

from oslo_config import cfg, generator  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
GENERATOR_CONF = ROOT / 'etc/consoled/config-generator.conf'
SAMPLE = ROOT / 'etc/consoled/consoled.conf.sample'

LIBRARIES = ('oslo.config', 'oslo.db', 'oslo.log', 'oslo.messaging', 'oslo.service')
# consoled does not support Kafka.
UNUSED_GROUPS = ('oslo_messaging_kafka',)
MACHINE_SPECIFIC = {('oslo_messaging_rabbit', 'hostname'): "<this machine's host name>"}

_GROUP = re.compile(r'^\[(\w+)\]$', re.MULTILINE)
_VALUE = re.compile(r'^#([a-z]\w*) =.*$', re.MULTILINE)


def versions() -> str:
    """Return the first line of a sample made with the installed libraries."""
    return '# Made with ' + ', '.join(f'{name} {metadata.version(name)}' for name in LIBRARIES)


def generate(namespaces: list[str] | None = None) -> str:
    """Return the text of the sample.

    :param namespaces: namespaces to list instead of those in the generator's configuration
    """
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(['--config-file', str(GENERATOR_CONF)])
    if namespaces:
        conf.set_override('namespace', namespaces)
    text = io.StringIO()
    generator.generate(conf, output_file=text)
    return f'{versions()}\n\n{_corrected(text.getvalue())}'


def _corrected(text: str) -> str:
    conf = _effective()
    # group, its text, group, its text, ...
    parts = _GROUP.split(text)[1:]
    sections = []
    for group, body in zip(parts[::2], parts[1::2], strict=True):
        if group in UNUSED_GROUPS:
            continue
        blocks = [_block(conf, group, block) for block in body.strip('\n').split('\n\n')]
        sections.append('\n\n'.join([f'[{group}]', *filter(None, blocks)]))
    return '\n\n\n'.join(sections) + '\n'


def _effective() -> cfg.ConfigOpts:
    """Return all options with the defaults that they have in consoled's programs."""
    # Without an explicit file, /etc/consoled/consoled.conf of this machine would be read.
    return _daemon.configure(['--config-file', '/dev/null'], prog='consoled', conf=cfg.ConfigOpts())


def _block(conf: cfg.ConfigOpts, group: str, block: str) -> str | None:
    """Return an option with its help, or a heading; None for an option that consoled does not use."""
    found = _VALUE.search(block)
    if found is None:
        return block
    name = found.group(1)
    options = conf if group == 'DEFAULT' else conf[group]
    if name not in options:
        return None
    if 'sample default set' in block:
        return block
    value = MACHINE_SPECIFIC.get((group, name)) or _text(options[name])
    if value is None:  # keep what the generator wrote
        return block
    return _VALUE.sub(lambda _: f'#{name} = {value}', block)


def _text(value: object) -> str | None:
    """Return a value as it is written in a configuration file; None for kinds that are not handled here."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and value:
        return ','.join(map(str, value))
    if isinstance(value, str) and value and value == value.strip():
        return value
    return None


def main() -> None:
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    target.write_text(generate())


if __name__ == '__main__':
    main()
