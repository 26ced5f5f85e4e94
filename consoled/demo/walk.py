# SPDX-License-Identifier: Apache-2.0
"""A walk through the life cycle of a console in a cell. Each step is checked."""

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

_POLL_INTERVAL = 0.02  # seconds
_SHORT_TTLS = (1, 4)  # seconds; on a busy machine the first may pass before the token is validated

_RFB_VERSION = b'RFB 003.008\n'
_PROMPT = b'router>'
_MAX_OUTPUT = 65536  # bytes of a guest before its prompt

_DESKTOP = demo_driver.DESKTOP
_ROUTER = demo_driver.ROUTER


class Stopped(Exception):
    """The user has asked to stop."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a step.

    :ivar asked: the request, for the reader
    :ivar answered: the answer, for the reader
    :ivar got: the values to check
    """

    asked: str
    answered: str
    got: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the walk: its title, why it matters, what it does, and the expected values."""

    title: str
    why: str
    run: Callable[[Cell], Outcome]
    expected: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of a step; ``problem`` is None if it succeeded."""

    outcome: Outcome | None
    problem: str | None


def run_step(cell: Cell, step: Step) -> Result:
    """Run a step and check its outcome.

    :raises Stopped: the user has asked to stop
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


# helpers of the steps


def _user(name: str) -> RequestContext:
    return RequestContext(user_id=name, project_id='demo')


def _until(cell: Cell, probe: Callable[[], Any], wanted: Any) -> Any:
    """Wait until ``probe`` returns ``wanted``, or time is up; return what it returned last."""
    deadline = time.monotonic() + user.TIMEOUT
    while (found := probe()) != wanted and time.monotonic() < deadline:
        if cell.stopped():
            raise Stopped
        time.sleep(_POLL_INTERVAL)
    return found


def _refusal(call: Callable[..., Any], *args: Any) -> exception.ConsoledException | None:
    """Call, and return the error, or None if the call succeeded."""
    try:
        call(*args)
    except exception.ConsoledException as exc:
        return exc
    return None


def _validity(cell: Cell, grant: objects.ConsoleAuthToken) -> str:
    """Return 'ok' if the token is valid, or the error code."""
    error = _refusal(cell.manager.validate, RequestContext(), grant.token)
    return 'ok' if error is None else error.code


def _count_free(cell: Cell, guest: demo_driver.Guest, console_type: str) -> int | None:
    """Return how many consoles are free; None if the manager does not know the guest."""
    try:
        free = cell.manager.list_free_ports(RequestContext(), guest.uuid, console_type)
    except exception.InstanceNotFound:
        return None
    return len(free.objects)


def _masked_url(grant: objects.ConsoleAuthToken) -> str:
    token = str(grant.token)
    return str(grant.access_url).replace(token, f'{token[:4]}***')


def _expires(grant: objects.ConsoleAuthToken) -> datetime.datetime:
    if grant.expires is None:
        raise ValueError('the grant has no end')
    return grant.expires


def _format_time(moment: datetime.datetime) -> str:
    return f'{moment:%H:%M:%S} UTC'


def _token_request(
    console: objects.ConsoleConnection | objects.ConsoleAuthToken,
) -> objects.ConsoleAuthToken:
    """Return the argument of ``authorize`` for another token of the same console."""
    return objects.ConsoleAuthToken(
        **{name: getattr(console, name) for name in objects.ConsoleConnection.fields}
    )


def _count_sessions(cell: Cell) -> int:
    return len(cell.manager.list_sessions(RequestContext()).objects)


# the steps


def define(cell: Cell) -> Outcome:
    cell.define_consoles()
    wanted = {_DESKTOP.name: 1, _ROUTER.name: 4}

    def free() -> dict[str, int | None]:
        return {
            _DESKTOP.name: _count_free(cell, _DESKTOP, ConsoleType.NOVNC),
            _ROUTER.name: _count_free(cell, _ROUTER, ConsoleType.SERIAL),
        }

    known = _until(cell, free, wanted)  # define_consoles is a cast, which has no answer
    return Outcome(
        asked=f'{COMPUTE_HOST}: {_DESKTOP.name} has a VNC screen, {_ROUTER.name} has four serial ports',
        answered=', '.join(f'{count} free on {name}' for name, count in known.items()),
        got=known,
    )


def authorize(cell: Cell) -> Outcome:
    grant = cell.compute.get_console(_user(ALICE), COMPUTE_HOST, _DESKTOP.uuid, ConsoleType.NOVNC)
    cell.grants['screen'] = grant
    return Outcome(
        asked=f'{ALICE}: open the screen of {_DESKTOP.name}',
        answered=f'{_masked_url(grant)}  (expires {_format_time(_expires(grant))})',
        got={
            'user': grant.user_id,
            'host': grant.host,
            'token in the URL': str(grant.token) in str(grant.access_url),
        },
    )


def validate(cell: Cell) -> Outcome:
    grant = cell.manager.validate(RequestContext(), str(cell.grants['screen'].token))
    wrong = _refusal(cell.manager.validate, RequestContext(), 'A' * 20)
    return Outcome(
        asked=f'{PROXY}: is this token valid, and for which console? And this invented one?',
        answered=f'{grant.user_id} may open {grant.console_type} at {grant.host}:{grant.port}. And: {wrong}',
        got={
            'user': grant.user_id,
            'token in the answer': grant.token is not None,
            'invented': wrong.code if wrong else 'ok',
        },
    )


def open_screen(cell: Cell) -> Outcome:
    with user.websocket(cell, str(cell.grants['screen'].token)) as browser:
        # RFC 6143, section 7: version, security type None, shared flag; then ServerInit
        reader = user.Reader(browser)
        for length, answer in ((len(_RFB_VERSION), _RFB_VERSION), (2, b'\x01'), (4, b'\x01')):
            reader.read(length)
            browser.send(answer)
        width, height, _, length = struct.unpack('!HH16sI', reader.read(24))
        name = reader.read(length).decode('latin-1')
    sessions = _until(cell, lambda: _count_sessions(cell), 0)
    return Outcome(
        asked=f'{ALICE}, in the browser: opens the URL, sees the screen, closes it',
        answered=f'{name}, {width} x {height} pixels; sessions after closing: {sessions}',
        got={'name': name, 'sessions': sessions},
    )


def connect(cell: Cell) -> Outcome:
    before = _count_free(cell, _ROUTER, ConsoleType.SERIAL)
    grant = cell.compute.get_console(_user(ALICE), COMPUTE_HOST, _ROUTER.uuid, ConsoleType.SERIAL)
    cell.grants['port'] = grant
    terminal = cell.connections[ALICE] = user.websocket(cell, str(grant.token))
    terminal.send(b'\r')
    output = b''
    while _PROMPT not in output and len(output) < _MAX_OUTPUT:
        output += user.receive(terminal)
    after = _count_free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{ALICE}: open a serial port of {_ROUTER.name} in a terminal',
        answered=f'the guest shows "{_PROMPT.decode()}"; free ports: {before} -> {after}',
        got={'prompt': _PROMPT in output, 'before': before, 'after': after},
    )


def refuse_second(cell: Cell) -> Outcome:
    taken = cell.grants['port']
    grant = cell.manager.authorize(_user(BOB), _token_request(taken))
    cell.grants[BOB] = grant
    status, reason = user.refusal(cell, str(grant.token))
    free = _count_free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{BOB}, with a token of his own for port {taken.port}: open it too',
        answered=f'HTTP {status}: {reason.get("reason")}',
        got={'refused with': reason.get('code'), 'status': status, 'free': free},
    )


def revoke(cell: Cell) -> Outcome:
    started = time.monotonic()
    counts = cell.manager.revoke(RequestContext(), 'left_the_project', user_id=ALICE)
    code, text = user.wait_closed(cell.connections[ALICE])
    took = time.monotonic() - started
    free = _until(cell, lambda: _count_free(cell, _ROUTER, ConsoleType.SERIAL), 4)
    return Outcome(
        asked=f'operator: {ALICE} has left the project, revoke all her access',
        answered=f'{counts.tokens} tokens and {counts.sessions} session revoked; after {took * 1000:.0f} ms '
        f'her terminal is closed with {code}: {text}',
        got={
            'tokens': counts.tokens,
            'sessions': counts.sessions,
            'closed with': code,
            'her token': _validity(cell, cell.grants['port']),
            'free': free,
        },
    )


def expire(cell: Cell) -> Outcome:
    (screen,) = cell.driver.list_consoles(_DESKTOP.uuid)
    wanted = _token_request(screen)
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
        asked=f'{BOB}: open the screen of {_DESKTOP.name}, with a token valid for {ttl} s',
        answered=f'valid at first; after {took:.1f} s HTTP {status}: {reason.get("reason")}',
        got={'at first': at_first, 'later': later, 'status': status},
    )


def clean(cell: Cell) -> Outcome:
    before = _validity(cell, cell.grants[BOB])
    cell.manager.clean_console_auths_for_instance(RequestContext(), _ROUTER.uuid)
    left = _until(cell, lambda: _count_free(cell, _ROUTER, ConsoleType.SERIAL), None)
    after = _validity(cell, cell.grants[BOB])
    return Outcome(
        asked=f'{COMPUTE_HOST}: {_ROUTER.name} was deleted',
        answered=f"its consoles are deleted; {BOB}'s token for one of them: {before} -> {after}",
        got={'consoles': left, 'before': before, 'after': after},
    )


STEPS = (
    Step(
        'The compute agent reports the consoles of its guests',
        'Only the agent knows them. The manager stores them, so that it can tell which are free.',
        define,
        {_DESKTOP.name: 1, _ROUTER.name: 4},
    ),
    Step(
        'A user requests a console and gets a URL',
        'This is the only time that the token in it is shown. The database stores only its hash.',
        authorize,
        {'user': ALICE, 'host': '127.0.0.1', 'token in the URL': True},
    ),
    Step(
        'The proxy validates a token',
        'The address to connect to comes from the manager, never from the browser. All bad tokens get the '
        'same answer.',
        validate,
        {'user': ALICE, 'token in the answer': False, 'invented': 'invalid_token'},
    ),
    Step(
        'The browser opens the screen',
        'The proxy asks the manager and connects to the guest before it accepts the websocket.',
        open_screen,
        {'name': _DESKTOP.name, 'sessions': 0},
    ),
    Step(
        'The user opens one of four serial ports',
        'The manager chooses a free port, and asks the agent whether it still belongs to that guest.',
        connect,
        {'prompt': True, 'before': 4, 'after': 3},
    ),
    Step(
        'A second user is refused',
        'Two readers of a serial port would each get half of the output. A unique key in the database '
        'prevents it.',
        refuse_second,
        {'refused with': 'console_in_use', 'status': 409, 'free': 3},
    ),
    Step(
        'Access is revoked while the console is open',
        'The manager deletes the tokens and tells the proxy to cut the session, which frees the port.',
        revoke,
        {'tokens': 2, 'sessions': 1, 'closed with': 4403, 'her token': 'invalid_token', 'free': 4},
    ),
    Step(
        'A token expires',
        'Nothing has to delete it. Only the clock of the database counts, so other clocks may be wrong.',
        expire,
        {'at first': 'ok', 'later': 'invalid_token', 'status': 401},
    ),
    Step(
        'The guest is deleted',
        'No console, token or session is left behind for the next guest that gets its ports.',
        clean,
        {'consoles': None, 'before': 'ok', 'after': 'invalid_token'},
    ),
)
