# SPDX-License-Identifier: Apache-2.0
"""``consolectl console attach``: use the serial console of a guest in the terminal."""

from __future__ import annotations

import argparse
import ssl

from consoled import objects
from consoled.cli import arguments
from consoled.consolectl.console import ConsoleCommand, add_host, add_user
from consoled.consolectl.terminal import Escape, Screen, Terminal

_SERIAL = 'serial'
_WAIT = 1  # seconds


def _escape(value: str) -> Escape | None:
    return None if value == 'none' else Escape.from_caret(value)


class AttachConsole(ConsoleCommand):
    """Use the serial console of a guest in this terminal

    Requests a token as "console open" does, and connects through the proxy like any user. If the guest has
    several serial ports, the next free one is used. All keys are sent to the guest, including ^C and ^Z; the
    escape key detaches. If the connection is lost or the proxy restarts, Enter reconnects with a new token.

    A serial line does not tell the guest the size of the window: set it in the guest with "stty rows 40 cols
    120", again after each change. The guest's output is sent to the terminal unchanged.

    If standard input is not a terminal, it is sent unchanged (Enter is a carriage return), and there is no
    escape key and no reconnection. At the end of the input, the command waits until the guest is silent.

    Exit codes: 0 detached, or end of input; 1 refused, revoked, or closed by the guest; 3 connection lost, or
    a service does not answer; 128 plus its number for a signal.
    """

    example = 'consolectl console attach 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --escape ^A'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--type',
            dest='console_type',
            choices=[_SERIAL],
            default=_SERIAL,
            help='Console type; only serial consoles are text. Default: serial.',
        )
        add_host(parser)
        add_user(parser)
        parser.add_argument(
            '--escape',
            type=arguments.checked(_escape),
            default='^]',
            metavar='^X',
            help='The key that detaches, pressed with Ctrl; "none" for no key. Default: ^].',
        )
        parser.add_argument(
            '--ca',
            metavar='FILE',
            help='CA certificates (PEM) to verify the proxy with. Default: those of the system.',
        )
        parser.add_argument(
            '--wait',
            type=arguments.at_least(0),
            default=_WAIT,
            metavar='SECONDS',
            help='After the end of an input that is not a terminal, wait until the guest has been silent for '
            f'this long. Default: {_WAIT}.',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from consoled.consolectl.attachment import Attachment  # loads the websocket library

        tls = self._tls_context(parsed_args.ca)
        stdin = self.app.stdin.fileno()
        attachment = Attachment(
            stdin,
            Terminal(stdin, self.app.stderr),
            Screen(self.app.stdout.fileno()),
            authorize=lambda: self._authorize(parsed_args),
            explain=self.app.explain,
            tls=tls,
            escape=parsed_args.escape,
            wait=parsed_args.wait,
        )
        try:
            return attachment.run()
        finally:
            if attachment.authorizing:  # the user detached meanwhile: do not wait for the answer
                self.app.bus.abandon()

    def _tls_context(self, ca_file: str | None) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=ca_file)
        except OSError as exc:  # SSLError is a subclass
            self.parser.error(f'--ca: the certificates cannot be read: {exc.strerror}')

    def _authorize(self, parsed_args: argparse.Namespace) -> objects.ConsoleAuthToken:
        """Return a new token, and disconnect from the bus, which may not be needed again for hours."""
        try:
            return self.authorize(parsed_args)
        finally:
            self.app.bus.release()
