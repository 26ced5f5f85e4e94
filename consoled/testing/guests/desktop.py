# SPDX-License-Identifier: Apache-2.0
"""The desktop of a fake guest: a landscape, a clock, the typed text, the pointer. It uses no network.

Methods that change the picture return the rectangles that changed.
"""

from __future__ import annotations

import collections
import datetime
import math
import unicodedata

from consoled.testing.guests import backdrop, font
from consoled.testing.guests.canvas import Canvas, Color, Rect

MIN_WIDTH, MIN_HEIGHT = 480, 240

PANEL = Rect(16, 16, 376, 138)
MARK_BOX = Rect(30, 30, 13, 13)
MARK_COLOR: Color = (255, 0, 128)
TEXT_BOX = Rect(28, 92, 352, 50)
_KEY_LABEL = Rect(30, 74, 350, 9)

_DARK: Color = (8, 12, 28)
_WHITE: Color = (255, 255, 255)
_PALE: Color = (206, 214, 232)
_DIM: Color = (172, 182, 208)
_ACCENT: Color = (255, 196, 92)
_BUTTONS: tuple[Color, ...] = ((96, 220, 140), (255, 196, 92), (255, 104, 104))  # left, middle, right
_BAR = 26  # height of the status bar
_LINE = 28  # characters of the typed text that the box shows
_MAX_TEXT = 256  # characters of the typed text
_TRAIL = 14  # positions of the pointer

_KEYS = {
    0xFF08: 'BackSpace', 0xFF09: 'Tab', 0xFF0D: 'Return', 0xFF1B: 'Escape', 0xFF50: 'Home', 0xFF51: 'Left',
    0xFF52: 'Up', 0xFF53: 'Right', 0xFF54: 'Down', 0xFF55: 'Page Up', 0xFF56: 'Page Down', 0xFF57: 'End',
    0xFF63: 'Insert', 0xFF8D: 'Enter', 0xFFE1: 'Shift', 0xFFE2: 'Shift', 0xFFE3: 'Control',
    0xFFE4: 'Control', 0xFFE5: 'Caps Lock', 0xFFE7: 'Meta', 0xFFE8: 'Meta', 0xFFE9: 'Alt', 0xFFEA: 'Alt',
    0xFFEB: 'Super', 0xFFEC: 'Super', 0xFE03: 'AltGr', 0xFFFF: 'Delete', 0x20: 'Space',
    **{0xFFBD + number: f'F{number}' for number in range(1, 13)},
}  # fmt: skip
_MODIFIERS = {0xFFE3, 0xFFE4, 0xFFE7, 0xFFE8, 0xFFE9, 0xFFEA, 0xFFEB, 0xFFEC}  # typing with them adds no text

# the pointer; # is dark, . is light
_ARROW = """
#
##
#.#
#..#
#...#
#....#
#.....#
#......#
#.......#
#........#
#.....#####
#..#..#
#.# #..#
##  #..#
#    #..#
     #..#
      ##
""".strip('\n').splitlines()


def keysym_to_char(keysym: int) -> str | None:
    """Return the character that a key types, or None.

    Supported are the keysyms of Latin 1, of Unicode and of the keypad (X11 protocol, appendix A).
    """
    if 0x20 <= keysym <= 0x7E or 0xA0 <= keysym <= 0xFF:
        return chr(keysym)
    if 0xFFAA <= keysym <= 0xFFB9:
        return chr(keysym - 0xFF80)
    if 0x01000100 <= keysym <= 0x0110FFFF:
        char = chr(keysym - 0x01000000)
        return char if unicodedata.category(char)[0] not in 'CZ' else None
    return None


class Desktop:
    """The desktop's state and its picture.

    :param title: the guest's name
    :param subtitle: a line below the name
    :ivar screen: the picture that clients see
    :ivar text: the typed text
    """

    def __init__(self, title: str, subtitle: str, width: int, height: int) -> None:
        # Three layers: _still never changes, _base adds the contents that change, screen adds the pointer.
        self._still = Canvas(width, height, backdrop.landscape(title, width, height))
        self.bounds = self._still.bounds
        self._clock_at = (width - 84, 84)
        self._clock_box = Rect(width - 84, 84, 1, 1).grown(60)
        self._time_box = Rect(width - 142, 150, 116, 37)
        self._has_clock = width >= PANEL.x + PANEL.width + 160
        self._bar = Rect(0, height - _BAR, width, _BAR)
        self.text = ''
        self._above = 'click here and type'
        self._last_key = ''
        self._held: set[int] = set()
        self._pointer: tuple[int, int, int] | None = None  # x, y, buttons
        self._trail: collections.deque[tuple[int, int]] = collections.deque(maxlen=_TRAIL)
        self._overlay: list[Rect] = []
        self._draw_still(title, subtitle)
        self._base = Canvas(width, height, bytes(self._still.pixels))
        self.screen = Canvas(width, height, bytes(self._still.pixels))
        self._show([*self._draw_text(), *self._draw_bar('', '')])

    def key(self, keysym: int, down: bool) -> list[Rect]:
        """Press or release a key."""
        if not down:
            self._held.discard(keysym)
            return []
        if keysym in _MODIFIERS:
            self._held.add(keysym)
        char = keysym_to_char(keysym)
        names = sorted({_KEYS[held] for held in self._held})
        if keysym not in _MODIFIERS:
            names.append(_KEYS.get(keysym) or char or f'0x{keysym:x}')
        self._last_key = ' '.join(names)
        if not self._held:
            self._type(keysym, char)
        return self._show(self._draw_text())

    def release_all(self) -> None:
        """Release all keys, after the client that pressed them has left."""
        self._held.clear()

    def _type(self, keysym: int, char: str | None) -> None:
        if keysym == 0xFF08:
            self.text = self.text[:-1]
        elif keysym in (0xFF0D, 0xFF8D):
            self.text, self._above = '', self.text
        elif char is not None:
            self.text = (self.text + char)[-_MAX_TEXT:]

    def point(self, x: int, y: int, buttons: int) -> list[Rect]:
        """Move the pointer, or press or release its buttons.

        :param buttons: bit 0 left, 1 middle, 2 right
        """
        x, y = min(x, self.bounds.width - 1), min(y, self.bounds.height - 1)
        if self._pointer is not None and self._pointer[:2] != (x, y):
            self._trail.append(self._pointer[:2])
        self._pointer = (x, y, buttons)
        return self._show(self._draw_pointer_state(), moved=True)

    def fade(self) -> list[Rect]:
        """Remove the oldest position from the pointer's trail."""
        if self._trail:
            self._trail.popleft()
        return self._show([], moved=True)

    @property
    def fading(self) -> bool:
        """Whether the pointer has a trail."""
        return bool(self._trail)

    def tick(self, now: datetime.datetime, status: str) -> list[Rect]:
        """Show the time, and a status text at the right end of the status bar."""
        changed = self._draw_clock(now) if self._has_clock else []
        return self._show([*changed, *self._draw_bar(status, now.strftime('%H:%M:%S'))])

    def _draw_still(self, title: str, subtitle: str) -> None:
        canvas = self._still
        canvas.panel(PANEL, 10, _DARK, 0.62)
        canvas.panel(TEXT_BOX, 6, _DARK, 0.6)
        canvas.fill(MARK_BOX, MARK_COLOR)
        canvas.text(MARK_BOX.x + 24, MARK_BOX.y - 1, title[:_LINE], _WHITE, 2)
        canvas.text(MARK_BOX.x, MARK_BOX.y + 28, subtitle[:58], _PALE)
        canvas.blend(self._bar, _DARK, 0.6)
        if self._has_clock:
            x, y = self._clock_at
            canvas.disc(x, y, 56, _DARK, 0.45)
            canvas.ring(x, y, 56, 1.5, _WHITE, 0.75)
            for minute in range(0, 60, 5):
                inner, width = (43, 2.4) if minute % 15 == 0 else (48, 1.2)
                canvas.line(self._hand(minute / 60, inner), self._hand(minute / 60, 51), width, _WHITE, 0.85)
            canvas.panel(self._time_box, 8, _DARK, 0.45)

    def _hand(self, turn: float, length: float) -> tuple[float, float]:
        angle = math.tau * turn
        return self._clock_at[0] + length * math.sin(angle), self._clock_at[1] - length * math.cos(angle)

    def _draw_clock(self, now: datetime.datetime) -> list[Rect]:
        canvas = self._base
        for box in (self._clock_box, self._time_box):
            canvas.copy(self._still, box)
        minutes = now.minute + now.second / 60
        canvas.line(self._clock_at, self._hand((now.hour % 12 + minutes / 60) / 12, 29), 4.5, _WHITE)
        canvas.line(self._clock_at, self._hand(minutes / 60, 42), 3, _WHITE)
        canvas.line(self._hand(now.second / 60 + 0.5, 10), self._hand(now.second / 60, 47), 1.2, _ACCENT)
        canvas.disc(*self._clock_at, 3.2, _ACCENT)
        left = self._time_box.x + 10
        canvas.text(left, self._time_box.y + 5, now.strftime('%H:%M:%S'), _WHITE, 2)
        canvas.text(left + 2, self._time_box.y + 25, now.strftime('%a %d %b %Y'), _PALE)
        return [self._clock_box, self._time_box]

    def _draw_text(self) -> list[Rect]:
        canvas, box = self._base, TEXT_BOX
        canvas.copy(self._still, box)
        canvas.copy(self._still, _KEY_LABEL)
        canvas.text(box.x + 10, box.y + 6, self._above[-2 * _LINE :], _DIM)
        shown = self.text[-(_LINE - 1) :]
        canvas.text(box.x + 8, box.y + 22, shown, _ACCENT, 2)
        caret = box.x + 8 + len(shown) * font.ADVANCE * 2
        canvas.fill(Rect(caret, box.y + 22, 2, 16), _WHITE)
        label = f'key: {self._last_key}' if self._last_key else 'no key pressed yet'
        canvas.text(_KEY_LABEL.x, _KEY_LABEL.y, label[:58], _DIM)
        return [box, _KEY_LABEL]

    def _draw_bar(self, status: str, time: str) -> list[Rect]:
        bar = self._bar
        right = bar & Rect(bar.width // 2, bar.y, bar.width, bar.height)
        self._base.copy(self._still, right)
        text = status if self._has_clock else f'{status}  {time}'
        width = len(text) * font.ADVANCE
        self._base.text(bar.width - 16 - width, bar.y + 9, text, _PALE)
        return [right, *self._draw_pointer_state()]

    def _draw_pointer_state(self) -> list[Rect]:
        box = Rect(0, self._bar.y, 240, self._bar.height)
        self._base.copy(self._still, box)
        x, y, buttons = self._pointer or (0, 0, 0)
        for number, color in enumerate(_BUTTONS):
            button = Rect(16 + number * 14, box.y + 7, 11, 12)
            pressed = bool(buttons >> number & 1)
            self._base.panel(button, 3, color if pressed else _WHITE, 1.0 if pressed else 0.22)
        label = f'pointer {x}, {y}' if self._pointer else 'no pointer yet'
        self._base.text(66, box.y + 9, label, _PALE)
        return [box]

    def _show(self, changed: list[Rect], moved: bool = False) -> list[Rect]:
        """Copy the changed rectangles to the screen, and draw the pointer over them."""
        touched = list(changed)
        if moved or any(box & over for box in changed for over in self._overlay):
            touched += self._overlay
            self._overlay = self._overlay_boxes()
            touched += self._overlay
            redraw = True
        else:
            redraw = False
        for box in touched:
            self.screen.copy(self._base, box)
        if redraw:
            self._draw_overlay()
        return [box for each in touched if (box := each & self.bounds)]

    def _overlay_boxes(self) -> list[Rect]:
        boxes = [Rect(x, y, 1, 1).grown(5) for x, y in self._trail]
        if self._pointer is not None:
            x, y, _ = self._pointer
            boxes.append(Rect(x, y, 11, len(_ARROW)))
            boxes.append(Rect(x, y, 1, 1).grown(16))
        return boxes

    def _draw_overlay(self) -> None:
        for age, (x, y) in enumerate(self._trail, _TRAIL - len(self._trail) + 1):
            share = age / _TRAIL
            self.screen.disc(x + 0.5, y + 0.5, 0.8 + 2.2 * share, _ACCENT, 0.75 * share)
        if self._pointer is None:
            return
        x, y, buttons = self._pointer
        for number, color in enumerate(_BUTTONS):
            if buttons >> number & 1:
                self.screen.ring(x + 0.5, y + 0.5, 13, 2.5, color, 0.95)
        for row, line in enumerate(_ARROW):
            for column, dot in enumerate(line):
                if dot != ' ':
                    shade = _DARK if dot == '#' else _WHITE
                    self.screen.fill(Rect(x + column, y + row, 1, 1), shade)
