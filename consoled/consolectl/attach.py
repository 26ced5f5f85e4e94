# SPDX-License-Identifier: Apache-2.0
"""``consolectl console attach``: a guest's serial console in the terminal."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from consoled.cli import arguments
from consoled.consolectl.console import ConsoleCommand, add_host, add_user

if TYPE_CHECKING:
    import ssl

    from consoled import objects
    from consoled.consolectl.terminal import Escape

_SERIAL = 'serial'
_WAIT = 1  # seconds


def _escape(value: str) -> Escape | None:
    from consoled.consolectl.terminal import Escape

    return None if value == 'none' else Escape.of(value)


class AttachConsole(ConsoleCommand):
    """Use a guest's serial console in this terminal

    Asks for a token as console open does, and goes through the proxy as any user. Of several serial ports it
    takes the next free one. All keys go to the guest, ^C and ^Z too; the escape key leaves. When the
    connection is lost, or the proxy is restarted, Enter reconnects with a new token.

    A serial line does not tell the guest how large the window is, nor that its size has changed: say it there
    with "stty rows 40 cols 120". What the guest writes reaches the terminal as it is.

    When standard input is no terminal, it is sent as it is (Enter is a carriage return), there is no escape
    key, and no reconnecting. After its end, the command goes on until the guest is silent.

    Exit codes: 0 left by the escape key, or input at its end; 1 refused, revoked, or closed by the guest; 3
    connection lost, or a service does not answer; 128 and its number for a signal.
    """

    example = 'consolectl console attach 5c8a1c1e-7f9b-4a55-9d0c-2f4b5a0e1d11 --escape ^A'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--type',
            dest='console_type',
            choices=[_SERIAL],
            default=_SERIAL,
            help='Console type: only this one is text. Default: serial.',
        )
        add_host(parser)
        add_user(parser)
        parser.add_argument(
            '--escape',
            type=arguments.checked(_escape),
            default='^]',
            metavar='^X',
            help='The key that leaves: Ctrl and this one; none: no key. Default: ^].',
        )
        parser.add_argument(
            '--ca',
            metavar='FILE',
            help='Certificates (PEM) of the authorities that may vouch for the proxy. Default: those of the '
            'system.',
        )
        parser.add_argument(
            '--wait',
            type=arguments.at_least(0),
            default=_WAIT,
            metavar='SECONDS',
            help='How long the guest must be silent after the end of an input that is no terminal. '
            f'Default: {_WAIT}.',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from consoled.consolectl.attachment import Attachment
        from consoled.consolectl.terminal import Screen, Terminal

        tls = self._tls(parsed_args.ca)
        stdin = self.app.stdin.fileno()
        attachment = Attachment(
            stdin,
            Terminal(stdin, self.app.stderr),
            Screen(self.app.stdout.fileno()),
            authorize=lambda: self._authorized(parsed_args),
            explain=self.app.explain,
            tls=tls,
            escape=parsed_args.escape,
            wait=parsed_args.wait,
        )
        try:
            return attachment.run()
        finally:
            if attachment.asking:  # left while somebody did not answer: that is not waited for
                self.app.bus.forget()

    def _tls(self, authorities: str | None) -> ssl.SSLContext:
        import ssl

        try:
            return ssl.create_default_context(cafile=authorities)
        except OSError as exc:  # SSLError is one
            self.parser.error(f'--ca: the certificates can not be read: {exc.strerror}')

    def _authorized(self, parsed_args: argparse.Namespace) -> objects.ConsoleAuthToken:
        """A new token. The bus is not needed again for hours, perhaps."""
        try:
            return self.authorized(parsed_args)
        finally:
            self.app.bus.release()
