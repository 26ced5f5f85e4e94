# SPDX-License-Identifier: Apache-2.0
"""Arguments that select tokens and sessions, and the reason for revoking them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from consoled.cli import arguments

FILTERS = ('instance_uuid', 'project_id', 'user_id', 'compute_host')


def add_filters(parser: argparse.ArgumentParser, what: str) -> None:
    """Add an argument for each of ``FILTERS``.

    :param what: beginning of the help texts: what is selected
    """
    name = arguments.text(255)
    parser.add_argument(
        '--instance', dest='instance_uuid', type=arguments.uuid, metavar='UUID', help=f'{what} of this guest.'
    )
    parser.add_argument(
        '--project', dest='project_id', type=name, metavar='ID', help=f'{what} of this project.'
    )
    parser.add_argument('--user', dest='user_id', type=name, metavar='ID', help=f'{what} of this user.')
    parser.add_argument(
        '--compute-host',
        dest='compute_host',
        type=name,
        metavar='NAME',
        help=f'{what} of the guests on this compute host (name of its service).',
    )


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--reason``."""
    parser.add_argument(
        '--reason',
        type=arguments.text(64),
        default='operator',
        help='A word or two for the logs and the session list; at most 64 characters. The user whose session '
        'is cut is not shown it. Default: operator.',
    )


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """Return those of the named arguments that were given on the command line."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}
