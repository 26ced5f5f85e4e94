# SPDX-License-Identifier: Apache-2.0
"""[vnc], [spice], [serial_console], [mks]: limits of each console type.

The groups have the names that operators of such clouds know; ``GROUP_OF_TYPE`` says which type each is for.
"""

from oslo_config import cfg

GROUP_OF_TYPE = {
    'novnc': 'vnc',
    'spice-html5': 'spice',
    'serial': 'serial_console',
    'webmks': 'mks',
    'rdp-html5': None,  # has no proxy here, hence no session and no options
}

# A serial port has one reader: two would each get half of the output.
_DEFAULT_MAX_SESSIONS = {'vnc': 0, 'spice': 0, 'serial_console': 1, 'mks': 0}


def _opts(max_sessions: int) -> list[cfg.Opt]:
    return [
        cfg.IntOpt(
            'max_sessions',
            default=max_sessions,
            min=0,
            max=64,
            mutable=True,
            help='Sessions that one console of this type may have at a time; 0 means no limit. Use the same '
            'value on all managers of a cell. A lower value does not end sessions that are open.',
        ),
        cfg.StrOpt(
            'takeover',
            default='refuse',
            choices=[
                ('refuse', 'the new user is refused with console_in_use'),
                ('steal', 'the session connected longest is cut and the new user gets its place'),
            ],
            mutable=True,
            help='What happens when a console with all its sessions taken is opened once more.',
        ),
    ]


OPTS = {group: _opts(limit) for group, limit in _DEFAULT_MAX_SESSIONS.items()}


def register_opts(conf: cfg.ConfigOpts) -> None:
    for group, opts in OPTS.items():
        conf.register_opts(opts, group=group)
