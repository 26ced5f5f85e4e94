# SPDX-License-Identifier: Apache-2.0
"""The shell of a pretended router: what it says to what is typed. Knows no network, and no clock."""

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

# what comes later: seconds to wait before it, and what is said then
Later = list[tuple[float, str]]

# addresses for documentation (RFC 5737)
_INTERFACES = (
    ('eth0', '192.0.2.1/24', True, '10G', 'uplink'),
    ('eth1', '198.51.100.1/24', True, '10G', 'hall 1'),
    ('eth2', '203.0.113.1/24', False, '-', 'hall 2'),
    ('lo', '127.0.0.1/8', True, '-', 'loopback'),
)


def _columns(char: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in 'WF' else 1


class Shell:
    """A terminal's other end: ``feed`` it what is typed, show what it returns.

    A command that takes its time leaves what it will say in ``later``; whoever drives the shell takes it from
    there piece by piece (``go_on``). Meanwhile only ^C is heard.

    :param name: of the router; also in the prompt
    :param uptime: says the seconds since the router was started
    :param pause: seconds between two lines of a command that takes its time
    """

    def __init__(self, name: str, uptime: Callable[[], float], pause: float = 0.25) -> None:
        self.name = name
        self.later: Later = []
        self._uptime = uptime
        self._pause = pause
        self._prompt = f'{_BOLD}{_GREEN}{name}>{_RESET} '
        self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
        self._line = ''
        self._draft = ''
        self._history: list[str] = []
        self._place = 0  # in the history; its length for the line that is being typed
        self._sequence = ''
        self._after_return = False
        self._logged_in = True
        self._commands: dict[str, tuple[str, Callable[[str], str]]] = {
            'help': ('what can be said here', self._help),
            'show interfaces': ('the interfaces and their state', self._interfaces),
            'show version': ('what runs here', self._version),
            'ping': ('<address>  see whether a host answers', self._ping),
            'uptime': ('how long this has been up', self._say_uptime),
            'colors': ('what the terminal can show', self._colors),
            'history': ('the lines typed before', self._list_history),
            'clear': ('clear the screen', lambda rest: _CLEAR),
            'reload': ('restart', self._reload),
            'exit': ('log out', self._exit),
        }
        self._aliases = {'?': 'help', 'colours': 'colors', 'logout': 'exit', 'quit': 'exit'}

    def greet(self) -> bytes:
        """What is said to who has just been connected."""
        return self._encode(self._banner() + self._prompt)

    def feed(self, data: bytes) -> bytes:
        """Take what was typed; returns what is to be shown."""
        return self._encode(''.join(self._take(char) for char in self._decoder.decode(data)))

    def go_on(self) -> bytes:
        """Say the next thing of ``later``."""
        _, said = self.later.pop(0)
        return self._encode(said if self.later else said + self._ready())

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
        if self.later:
            return self._interrupt() if char == '\x03' else ''
        if char == '\n' and after_return:
            return ''
        if char in '\r\n':
            return self._enter()
        return self._edit(char) if self._logged_in else ''

    def _interrupt(self) -> str:
        self.later.clear()
        return f'^C\n{self._ready()}'

    def _in_sequence(self, char: str) -> str:
        """Control sequences (ECMA-48, 5.4): only the arrows up and down mean something here."""
        if unicodedata.category(char) == 'Cc':  # not a part of one: the key Escape, and then this
            self._sequence = ''
            return self._take(char)
        self._sequence += char
        introduced = self._sequence[:2] in ('\x1b[', '\x1bO')
        if introduced and (len(self._sequence) == 2 or not '@' <= char <= '~'):
            if len(self._sequence) > _MAX_SEQUENCE:
                self._sequence = ''
            return ''
        done, self._sequence = self._sequence, ''
        if self.later or not self._logged_in or done[1:] not in ('[A', 'OA', '[B', 'OB'):
            return ''
        return self._recall(-1 if char == 'A' else 1)

    def _recall(self, step: int) -> str:
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return '\a'
        if self._place == len(self._history):
            self._draft = self._line
        self._place = place
        self._line = self._draft if place == len(self._history) else self._history[place]
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
            self._place = len(self._history)
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
        self._place = len(self._history)
        said = self._run(line) if line else ''
        return f'\n{said}' + ('' if self.later else self._ready())

    def _run(self, line: str) -> str:
        words = line.split()
        for count in (2, 1):
            name = ' '.join(words[:count]).lower()
            command = self._commands.get(self._aliases.get(name, name))
            if command is not None:
                return command[1](' '.join(words[count:]))
        return f'{_RED}% unknown command:{_RESET} {line}\n  {_DIM}help says what is known{_RESET}\n'

    def _banner(self) -> str:
        width = 46
        title = f'  {self.name[:28]}'
        text = '  a pretended router on a real serial console'
        return (
            f'\n{_CYAN}+{"-" * width}+\n'
            f'|{_BOLD}{title:<{width}}{_RESET}{_CYAN}|\n'
            f'|{_RESET}{_DIM}{text:<{width}}{_RESET}{_CYAN}|\n'
            f'+{"-" * width}+{_RESET}\n'
            f'Type {_YELLOW}help{_RESET} for what can be said here.\n\n'
        )

    def _help(self, rest: str) -> str:
        return ''.join(
            f'  {_YELLOW}{name:<16}{_RESET} {what}\n' for name, (what, _) in self._commands.items()
        )

    def _interfaces(self, rest: str) -> str:
        lines = [f'{_BOLD}{"name":<8}{"address":<20}{"state":<8}{"speed":<8}what{_RESET}\n']
        for name, address, is_up, speed, what in _INTERFACES:
            state = f'{_GREEN if is_up else _RED}{"up" if is_up else "down":<8}{_RESET}'
            lines.append(f'{name:<8}{address:<20}{state}{speed:<8}{what}\n')
        return ''.join(lines)

    def _version(self, rest: str) -> str:
        return (
            f'{self.name}: consoled pretended router, one serial port, 4 interfaces\n{self._say_uptime("")}'
        )

    def _say_uptime(self, rest: str) -> str:
        minutes, seconds = divmod(int(self._uptime()), 60)
        hours, minutes = divmod(minutes, 60)
        return f'up {hours}:{minutes:02}:{seconds:02}\n'

    def _ping(self, rest: str) -> str:
        if not rest:
            return f'{_RED}% whom?{_RESET}  ping <address>\n'
        host = rest.split()[0]
        times = [0.4 + (len(host) * 7 + number * 13) % 10 / 10 for number in range(1, _PINGS + 1)]
        self.later = [
            (self._pause, f'64 bytes from {host}: seq={number} time={took:.1f} ms\n')
            for number, took in enumerate(times, 1)
        ]
        self.later.append((0, f'{_GREEN}{_PINGS} sent, {_PINGS} received{_RESET}\n'))
        return f'ping {host}, ^C ends it\n'

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
        self.later = [(self._pause, f'  {step:<24}{_GREEN}ok{_RESET}\n') for step in steps]
        self.later.append((self._pause, self._banner()))
        return f'{_YELLOW}{self.name} restarts{_RESET}\n'

    def _exit(self, rest: str) -> str:
        self._line = ''
        self._logged_in = False
        return f'{_DIM}logged out{_RESET}\n{self._banner()}Press {_YELLOW}Enter{_RESET} to log in again. '
