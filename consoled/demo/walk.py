# SPDX-License-Identifier: Apache-2.0
"""A walk through what a cell does for the life of a console: steps, each checked."""

from __future__ import annotations

import dataclasses
import datetime
import struct
import time
from collections.abc import Callable
from typing import Any

from websockets import exceptions as ws_exceptions

from consoled import exception, objects
from consoled.compute.drivers import demo as demo_driver
from consoled.context import RequestContext
from consoled.demo import user
from consoled.demo.cell import COMPUTE_HOST, PROXY, Cell
from consoled.objects import ConsoleType

ALICE, BOB = 'alice', 'bob'

_PATIENCE = user.PATIENCE
_POLL = 0.02  # seconds
_SHORT_TTLS = (1, 4)  # seconds; on a machine that is too busy the first may be over before it is looked at

_RFB_VERSION = b'RFB 003.008\n'
_PROMPT = b'router>'
_ENOUGH = 65536  # bytes that a guest may say before its prompt

_DESKTOP = demo_driver.DESKTOP
_ROUTER = demo_driver.ROUTER


class Stopped(Exception):
    """The user wants no more of it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a step asked and was answered, for a person; and what is checked of it."""

    asked: str
    answered: str
    got: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the walk: why it matters, what to do, and what has to come of it."""

    title: str
    why: str
    run: Callable[[Cell], Outcome]
    expected: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a step went; ``problem`` is None when all was as expected."""

    outcome: Outcome | None
    problem: str | None


def take(cell: Cell, step: Step) -> Result:
    """Take a step and check it.

    :raises Stopped: the user wants no more
    """
    if cell.stopped():
        raise Stopped
    try:
        outcome = step.run(cell)
    except Stopped:
        raise
    except exception.ConsoledException as exc:
        return Result(None, f'refused with {exc.code}: {exc}')
    except (ws_exceptions.WebSocketException, OSError) as exc:
        return Result(None, f'{type(exc).__name__}: {exc}')
    if outcome.got != step.expected:
        return Result(outcome, f'expected {step.expected}, got {outcome.got}')
    return Result(outcome, None)


# what the steps are made of


def _user(name: str) -> RequestContext:
    return RequestContext(user_id=name, project_id='demo')


def _until(cell: Cell, probe: Callable[[], Any], wanted: Any) -> Any:
    """Wait until ``probe`` returns ``wanted``; returns what it returned last."""
    deadline = time.monotonic() + _PATIENCE
    while (found := probe()) != wanted and time.monotonic() < deadline:
        if cell.stopped():
            raise Stopped
        time.sleep(_POLL)
    return found


def _error_of(call: Callable[..., Any], *args: Any) -> exception.ConsoledException | None:
    try:
        call(*args)
    except exception.ConsoledException as exc:
        return exc
    return None


def _code_of(call: Callable[..., Any], *args: Any) -> str:
    error = _error_of(call, *args)
    return 'ok' if error is None else error.code


def _validity(cell: Cell, grant: objects.ConsoleAuthToken) -> str:
    return _code_of(cell.manager.validate, RequestContext(), grant.token)


def _free(cell: Cell, guest: demo_driver.Guest, console_type: str) -> int | None:
    """How many consoles are free; None for a guest that the manager doesn't know."""
    try:
        free = cell.manager.list_free_ports(RequestContext(), guest.uuid, console_type)
    except exception.InstanceNotFound:
        return None
    return len(free.objects)


def _masked_url(grant: objects.ConsoleAuthToken) -> str:
    token = str(grant.token)
    return str(grant.access_url).replace(token, f'{token[:4]}***')


def _time(moment: datetime.datetime | None) -> str:
    return f'{moment:%H:%M:%S} UTC'


def _same_console(
    described: objects.ConsoleConnection | objects.ConsoleAuthToken,
) -> objects.ConsoleAuthToken:
    """What to authorize for one more token of a console."""
    return objects.ConsoleAuthToken(
        **{name: getattr(described, name) for name in objects.ConsoleConnection.fields}
    )


def _sessions(cell: Cell) -> int:
    return len(cell.manager.list_sessions(RequestContext()).objects)


# the steps


def define(cell: Cell) -> Outcome:
    cell.define()
    wanted = {_DESKTOP.name: 1, _ROUTER.name: 4}

    def free() -> dict[str, int | None]:
        return {
            _DESKTOP.name: _free(cell, _DESKTOP, ConsoleType.NOVNC),
            _ROUTER.name: _free(cell, _ROUTER, ConsoleType.SERIAL),
        }

    known = _until(cell, free, wanted)  # a cast has no answer
    return Outcome(
        asked=f'{COMPUTE_HOST}: {_DESKTOP.name} has a VNC screen, {_ROUTER.name} has four serial ports',
        answered=', '.join(f'{count} free on {name}' for name, count in known.items()),
        got=known,
    )


def authorize(cell: Cell) -> Outcome:
    grant = cell.compute.get_console(_user(ALICE), COMPUTE_HOST, _DESKTOP.uuid, ConsoleType.NOVNC)
    cell.grants['screen'] = grant
    return Outcome(
        asked=f'{ALICE}: the screen of {_DESKTOP.name}, please',
        answered=f'{_masked_url(grant)}  (until {_time(grant.expires)})',
        got={
            'user': grant.user_id,
            'host': grant.host,
            'token in the URL': str(grant.token) in str(grant.access_url),
        },
    )


def validate(cell: Cell) -> Outcome:
    grant = cell.manager.validate(RequestContext(), str(cell.grants['screen'].token))
    wrong = _error_of(cell.manager.validate, RequestContext(), 'A' * 20)
    return Outcome(
        asked=f'{PROXY}: whose is this token, and what may it open? And this one, that somebody made up?',
        answered=f"{grant.user_id}'s, for {grant.console_type} at {grant.host}:{grant.port}. And: {wrong}",
        got={
            'user': grant.user_id,
            'token in the answer': grant.token is not None,
            'made up': wrong.code if wrong else 'ok',
        },
    )


def look(cell: Cell) -> Outcome:
    with user.websocket(cell, str(cell.grants['screen'].token)) as browser:
        # RFC 6143, section 7: version, security type None, shared, then the server introduces itself
        reader = user.Reader(browser)
        for length, answer in ((len(_RFB_VERSION), _RFB_VERSION), (2, b'\x01'), (4, b'\x01')):
            reader.read(length)
            browser.send(answer)
        width, height, _, length = struct.unpack('!HH16sI', reader.read(24))
        name = reader.read(length).decode('latin-1')
    sessions = _until(cell, lambda: _sessions(cell), 0)
    return Outcome(
        asked=f'{ALICE}, in the browser: opens the URL, looks, and leaves',
        answered=f'the screen of {name}, {width} x {height} pixels; sessions afterwards: {sessions}',
        got={'name': name, 'sessions': sessions},
    )


def connect(cell: Cell) -> Outcome:
    before = _free(cell, _ROUTER, ConsoleType.SERIAL)
    grant = cell.compute.get_console(_user(ALICE), COMPUTE_HOST, _ROUTER.uuid, ConsoleType.SERIAL)
    cell.grants['port'] = grant
    terminal = cell.connections[ALICE] = user.websocket(cell, str(grant.token))
    terminal.send(b'\r')
    said = b''
    while _PROMPT not in said and len(said) < _ENOUGH:
        said += user.receive(terminal)
    after = _free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{ALICE}: a serial port of {_ROUTER.name}; and opens it with a terminal',
        answered=f'the guest says "{_PROMPT.decode()}"; free ports: {before} -> {after}',
        got={'prompt': _PROMPT in said, 'before': before, 'after': after},
    )


def refuse_second(cell: Cell) -> Outcome:
    taken = cell.grants['port']
    grant = cell.manager.authorize(_user(BOB), _same_console(taken))
    cell.grants[BOB] = grant
    status, reason = user.refusal(cell, str(grant.token))
    free = _free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{BOB}, with a token of his own for port {taken.port}: let me in too',
        answered=f'HTTP {status}: {reason.get("reason")}',
        got={'refused with': reason.get('code'), 'status': status, 'free': free},
    )


def revoke(cell: Cell) -> Outcome:
    started = time.monotonic()
    counts = cell.manager.revoke(RequestContext(), 'left_the_project', user_id=ALICE)
    code, text = user.end_of(cell.connections[ALICE])
    took = time.monotonic() - started
    free = _until(cell, lambda: _free(cell, _ROUTER, ConsoleType.SERIAL), 4)
    return Outcome(
        asked=f'the operator: {ALICE} has left the project, take everything back',
        answered=f'{counts["tokens"]} tokens and {counts["sessions"]} session; after {took * 1000:.0f} ms '
        f'her terminal is closed with {code}: {text}',
        got={**counts, 'closed with': code, 'her token': _validity(cell, cell.grants['port']), 'free': free},
    )


def expire(cell: Cell) -> Outcome:
    (screen,) = cell.driver.list_consoles(_DESKTOP.uuid)
    wanted = _same_console(screen)
    for ttl in _SHORT_TTLS:
        started = time.monotonic()
        grant = cell.manager.authorize(_user(BOB), wanted, ttl=ttl)
        at_first = _validity(cell, grant)
        if at_first == 'ok':
            break
    later = _until(cell, lambda: _validity(cell, grant), exception.InvalidToken.code)
    took = time.monotonic() - started
    status, reason = user.refusal(cell, str(grant.token))
    return Outcome(
        asked=f'{BOB}: the screen of {_DESKTOP.name}, with a token for {ttl} s',
        answered=f'valid at first; after {took:.1f} s HTTP {status}: {reason.get("reason")}',
        got={'at first': at_first, 'later': later, 'status': status},
    )


def clean(cell: Cell) -> Outcome:
    before = _validity(cell, cell.grants[BOB])
    cell.manager.clean_console_auths_for_instance(RequestContext(), _ROUTER.uuid)
    left = _until(cell, lambda: _free(cell, _ROUTER, ConsoleType.SERIAL), None)
    after = _validity(cell, cell.grants[BOB])
    return Outcome(
        asked=f'{COMPUTE_HOST}: guest {_ROUTER.name} was deleted',
        answered=f"its consoles are gone, and {BOB}'s token for one of them: {before} -> {after}",
        got={'consoles': left, 'before': before, 'after': after},
    )


STEPS = (
    Step(
        'The compute agent says which consoles its guests have',
        'Only the agent knows; the manager keeps it, so that it can say which are free.',
        define,
        {_DESKTOP.name: 1, _ROUTER.name: 4},
    ),
    Step(
        'A user asks for a screen and gets a URL',
        'The token in it is shown once, here. The database has its hash only.',
        authorize,
        {'user': ALICE, 'host': '127.0.0.1', 'token in the URL': True},
    ),
    Step(
        'The proxy asks whether a token is valid',
        'The place to connect to comes from here and never from the browser. One answer for every bad token.',
        validate,
        {'user': ALICE, 'token in the answer': False, 'made up': 'invalid_token'},
    ),
    Step(
        'The browser opens the screen',
        'The proxy asks the manager and connects to the guest before it says yes to the browser.',
        look,
        {'name': _DESKTOP.name, 'sessions': 0},
    ),
    Step(
        'The user opens one of four serial ports',
        "The manager chooses a free port, and asks the agent once more whether it is still that guest's.",
        connect,
        {'prompt': True, 'before': 4, 'after': 3},
    ),
    Step(
        'A second user is refused',
        'Two readers of a serial port would each get half of the output. A unique key decides, not luck.',
        refuse_second,
        {'refused with': 'console_in_use', 'status': 409, 'free': 3},
    ),
    Step(
        'Access is taken back while the console is open',
        'Tokens are deleted, and the proxy is told to end what is open; it closes, and the port is free.',
        revoke,
        {'tokens': 2, 'sessions': 1, 'closed with': 4403, 'her token': 'invalid_token', 'free': 4},
    ),
    Step(
        'A token expires by itself',
        "Nobody had to delete it. The database's clock decides, so clocks of other machines may be wrong.",
        expire,
        {'at first': 'ok', 'later': 'invalid_token', 'status': 401},
    ),
    Step(
        'The guest is deleted',
        'No console, token or session stays behind for the next guest that gets its ports.',
        clean,
        {'consoles': None, 'before': 'ok', 'after': 'invalid_token'},
    ),
)
