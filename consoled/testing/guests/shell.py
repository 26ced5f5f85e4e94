# SPDX-License-Identifier: Apache-2.0
"""The shell of a simulated router: text in, text out, without network or clock."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable

MAX_LINE = 256  # characters
_MAX_HISTORY = 50  # lines
_MAX_SEQUENCE = 16  # characters of a control sequence
_PINGS = 5

_RESET, _BOLD, _DIM = '\x1b[0m', '\x1b[1m', '\x1b[2m'
_RED, _GREEN, _YELLOW, _CYAN = (f'\x1b[3{number}m' for number in (1, 2, 3, 6))
_CLEAR = '\x1b[2J\x1b[H'
_TO_END = '\x1b[K'

# output still to come: seconds to wait, and the text to print then
PendingOutput = list[tuple[float, str]]

# addresses for documentation (RFC 5737)
_INTERFACES = (
    ('eth0', '192.0.2.1/24', True, '10G', 'uplink'),
    ('eth1', '198.51.100.1/24', True, '10G', 'hall 1'),
    ('eth2', '203.0.113.1/24', False, '-', 'hall 2'),
    ('lo', '127.0.0.1/8', True, '-', 'loopback'),
)


def _columns(char: str) -> int:
    """Return how many terminal columns a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in 'WF' else 1


class Shell:
    """A line-editing shell on a serial terminal. ``feed`` it the user's input and print what it returns.

    A slow command leaves its output in ``pending``. The caller waits as long as the first entry says, then
    calls ``continue_output``, until nothing is pending. Meanwhile the shell ignores all input except ^C.

    :param name: the router's name, which is also in the prompt
    :param uptime: returns the seconds since the router started
    :param pause: seconds between the output lines of a slow command
    """

    def __init__(self, name: str, uptime: Callable[[], float], pause: float = 0.25) -> None:
        self.name = name
        self.pending: PendingOutput = []
        self._uptime = uptime
        self._pause = pause
        self._prompt = f'{_BOLD}{_GREEN}{name}>{_RESET} '
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._line = ''
        self._draft = ''
        self._history: list[str] = []
        self._position = 0  # in the history; its length for the line being typed
        self._sequence = ''
        self._after_return = False
        self._logged_in = True
        self._commands: dict[str, tuple[str, Callable[[str], str]]] = {
            'help': ('list the commands', self._help),
            'show interfaces': ('show the interfaces and their state', self._interfaces),
            'show version': ('show the software version', self._version),
            'ping': ('<address>  check whether a host responds', self._ping),
            'uptime': ('show the time since the last restart', self._show_uptime),
            'colors': ("show the terminal's colors and styles", self._colors),
            'history': ('list the previous commands', self._list_history),
            'clear': ('clear the screen', lambda rest: _CLEAR),
            'reload': ('restart the router', self._reload),
            'exit': ('log out', self._exit),
        }
        self._aliases = {'?': 'help', 'colours': 'colors', 'logout': 'exit', 'quit': 'exit'}

    def greet(self) -> bytes:
        """Return the banner and the prompt for a new connection."""
        return self._encode(self._banner() + self._prompt)

    def feed(self, data: bytes) -> bytes:
        """Process the user's input and return the output."""
        return self._encode(''.join(self._take(char) for char in self._decoder.decode(data)))

    def continue_output(self) -> bytes:
        """Return the next part of ``pending``, and the prompt after the last part."""
        _, text = self.pending.pop(0)
        return self._encode(text if self.pending else text + self._ready())

    @staticmethod
    def _encode(text: str) -> bytes:
        return text.replace('\n', '\r\n').encode(errors='replace')

    def _ready(self) -> str:
        return self._prompt if self._logged_in else ''

    def _take(self, char: str) -> str:
        after_return, self._after_return = self._after_return, char == '\r'
        if self._sequence:
            return self._in_sequence(char)
        if char == '\x1b':
            self._sequence = char
            return ''
        if self.pending:
            return self._interrupt() if char == '\x03' else ''
        if char == '\n' and after_return:
            return ''
        if char in '\r\n':
            return self._enter()
        return self._edit(char) if self._logged_in else ''

    def _interrupt(self) -> str:
        self.pending.clear()
        return f'^C\n{self._ready()}'

    def _in_sequence(self, char: str) -> str:
        """Process a control sequence (ECMA-48, 5.4). Only the up and down arrows have an effect."""
        if unicodedata.category(char) == 'Cc':  # no sequence: the Escape key, and then this character
            self._sequence = ''
            return self._take(char)
        self._sequence += char
        introduced = self._sequence[:2] in ('\x1b[', '\x1bO')
        if introduced and (len(self._sequence) == 2 or not '@' <= char <= '~'):
            if len(self._sequence) > _MAX_SEQUENCE:
                self._sequence = ''
            return ''
        done, self._sequence = self._sequence, ''
        if self.pending or not self._logged_in or done[1:] not in ('[A', 'OA', '[B', 'OB'):
            return ''
        return self._recall(-1 if char == 'A' else 1)

    def _recall(self, step: int) -> str:
        position = self._position + step
        if not 0 <= position <= len(self._history):
            return '\a'
        if self._position == len(self._history):
            self._draft = self._line
        self._position = position
        self._line = self._draft if position == len(self._history) else self._history[position]
        return f'\r{self._prompt}{self._line}{_TO_END}'

    def _edit(self, char: str) -> str:
        if char in '\x7f\b':
            return self._erase(1)
        if char == '\x15':  # ^U
            return self._erase(len(self._line))
        if char == '\x17':  # ^W
            kept = self._line.rstrip().rpartition(' ')[0]
            return self._erase(len(self._line) - len(kept) - (1 if kept else 0))
        if char == '\x03':
            self._line = ''
            self._position = len(self._history)
            return f'^C\n{self._prompt}'
        if char == '\x04' and not self._line:
            return '\n' + self._exit('')
        if char == '\x0c':
            return f'{_CLEAR}{self._prompt}{self._line}'
        if unicodedata.category(char) == 'Cc':
            return ''
        if len(self._line) >= MAX_LINE:
            return '\a'
        self._line += char
        return char

    def _erase(self, count: int) -> str:
        if not self._line or count <= 0:
            return ''
        cut = len(self._line) - count
        width = sum(_columns(char) for char in self._line[cut:])
        self._line = self._line[:cut]
        return '\b \b' * width

    def _enter(self) -> str:
        if not self._logged_in:
            self._logged_in = True
            return f'\n{self._prompt}'
        line, self._line = self._line.strip(), ''
        if line and self._history[-1:] != [line]:
            self._history = [*self._history, line][-_MAX_HISTORY:]
        self._position = len(self._history)
        output = self._run(line) if line else ''
        return f'\n{output}' + ('' if self.pending else self._ready())

    def _run(self, line: str) -> str:
        words = line.split()
        for count in (2, 1):
            name = ' '.join(words[:count]).lower()
            command = self._commands.get(self._aliases.get(name, name))
            if command is not None:
                return command[1](' '.join(words[count:]))
        return f'{_RED}% unknown command:{_RESET} {line}\n  {_DIM}Type help for a list of commands.{_RESET}\n'

    def _banner(self) -> str:
        width = 46
        title = f'  {self.name[:28]}'
        text = '  a simulated router on a real serial console'
        return (
            f'\n{_CYAN}+{"-" * width}+\n'
            f'|{_BOLD}{title:<{width}}{_RESET}{_CYAN}|\n'
            f'|{_RESET}{_DIM}{text:<{width}}{_RESET}{_CYAN}|\n'
            f'+{"-" * width}+{_RESET}\n'
            f'Type {_YELLOW}help{_RESET} for a list of commands.\n\n'
        )

    def _help(self, rest: str) -> str:
        return ''.join(
            f'  {_YELLOW}{name:<16}{_RESET} {summary}\n' for name, (summary, _) in self._commands.items()
        )

    def _interfaces(self, rest: str) -> str:
        lines = [f'{_BOLD}{"name":<8}{"address":<20}{"state":<8}{"speed":<8}description{_RESET}\n']
        for name, address, is_up, speed, description in _INTERFACES:
            state = f'{_GREEN if is_up else _RED}{"up" if is_up else "down":<8}{_RESET}'
            lines.append(f'{name:<8}{address:<20}{state}{speed:<8}{description}\n')
        return ''.join(lines)

    def _version(self, rest: str) -> str:
        return (
            f'{self.name}: consoled simulated router, one serial port, 4 interfaces\n{self._show_uptime("")}'
        )

    def _show_uptime(self, rest: str) -> str:
        minutes, seconds = divmod(int(self._uptime()), 60)
        hours, minutes = divmod(minutes, 60)
        return f'up {hours}:{minutes:02}:{seconds:02}\n'

    def _ping(self, rest: str) -> str:
        if not rest:
            return f'{_RED}% missing address{_RESET}  usage: ping <address>\n'
        host = rest.split()[0]
        times = [0.4 + (len(host) * 7 + number * 13) % 10 / 10 for number in range(1, _PINGS + 1)]
        self.pending = [
            (self._pause, f'64 bytes from {host}: seq={number} time={took:.1f} ms\n')
            for number, took in enumerate(times, 1)
        ]
        self.pending.append((0, f'{_GREEN}{_PINGS} sent, {_PINGS} received{_RESET}\n'))
        return f'ping {host}, press ^C to stop\n'

    def _colors(self, rest: str) -> str:
        plain = ''.join(f'\x1b[4{number}m    ' for number in range(8))
        bright = ''.join(f'\x1b[10{number}m    ' for number in range(8))
        cube = ''.join(f'\x1b[48;5;{number}m ' for number in range(16, 232, 4))
        ramp = ''.join(f'\x1b[48;2;{step * 5};{255 - step * 5};180m ' for step in range(52))
        styles = f'{_BOLD}bold{_RESET} {_DIM}dim{_RESET} \x1b[4munderlined{_RESET} \x1b[7mreverse{_RESET}'
        rows = (plain, bright, cube, ramp, styles, 'Grüße, 世界, ▁▂▃▄▅▆▇█')
        return ''.join(f'  {row}{_RESET}\n' for row in rows)

    def _list_history(self, rest: str) -> str:
        return ''.join(f'  {number:>2}  {line}\n' for number, line in enumerate(self._history, 1))

    def _reload(self, rest: str) -> str:
        steps = ('memory 256 MiB', 'interfaces 4', 'routes 12', 'serial port 0')
        self.pending = [(self._pause, f'  {step:<24}{_GREEN}ok{_RESET}\n') for step in steps]
        self.pending.append((self._pause, self._banner()))
        return f'{_YELLOW}{self.name} is restarting{_RESET}\n'

    def _exit(self, rest: str) -> str:
        self._line = ''
        self._logged_in = False
        return f'{_DIM}logged out{_RESET}\n{self._banner()}Press {_YELLOW}Enter{_RESET} to log in again. '
