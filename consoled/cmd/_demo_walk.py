# SPDX-License-Identifier: Apache-2.0
"""A walk through what a cell does for the life of a console: steps, each checked."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from typing import Any

from consoled import exception, objects
from consoled.cmd._demo_cell import COMPUTE_HOST, PROXY, Cell
from consoled.compute.drivers import demo as demo_driver
from consoled.context import RequestContext
from consoled.objects import ConsoleType

ALICE, BOB = 'alice', 'bob'

_PATIENCE = 10.0  # seconds that anything may take before a step has failed
_POLL = 0.02  # seconds
_SHORT_TTLS = (1, 4)  # seconds; on a machine that is too busy the first may be over before it is looked at

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
    return str(grant.access_url).replace(grant.token, f'{grant.token[:4]}***')


def _time(moment: datetime.datetime) -> str:
    return f'{moment:%H:%M:%S} UTC'


# the steps


def define(cell: Cell) -> Outcome:
    wanted = {}
    for guest in (_DESKTOP, _ROUTER):
        consoles = cell.driver.list_consoles(guest.uuid)
        cell.manager.define_consoles(
            RequestContext(), guest.uuid, COMPUTE_HOST, objects.ConsoleConnectionList(objects=consoles)
        )
        wanted[guest.name] = len(consoles)

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
            'port': grant.port,
            'token in the URL': grant.token in grant.access_url,
        },
    )


def validate(cell: Cell) -> Outcome:
    grant = cell.manager.validate(RequestContext(), cell.grants['screen'].token)
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


def connect(cell: Cell) -> Outcome:
    before = _free(cell, _ROUTER, ConsoleType.SERIAL)
    grant = cell.compute.get_console(_user(ALICE), COMPUTE_HOST, _ROUTER.uuid, ConsoleType.SERIAL)
    cell.grants['port'] = grant
    session = cell.proxy.open(grant.token)
    cell.sessions[ALICE] = session
    after = _free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{ALICE}: a serial port of {_ROUTER.name}; and {PROXY} opens a session with her token',
        answered=f'connected to port {session.console.port}; free ports: {before} -> {after}',
        got={'before': before, 'after': after},
    )


def refuse_second(cell: Cell) -> Outcome:
    taken = cell.sessions[ALICE].console
    wanted = objects.ConsoleAuthToken(
        instance_uuid=taken.instance_uuid,
        console_type=taken.console_type,
        host=taken.host,
        port=taken.port,
        compute_host=taken.compute_host,
        access_url_base=taken.access_url_base,
        options=taken.options,
    )
    grant = cell.manager.authorize(_user(BOB), wanted)
    cell.grants[BOB] = grant
    refused = _error_of(cell.proxy.open, grant.token)
    free = _free(cell, _ROUTER, ConsoleType.SERIAL)
    return Outcome(
        asked=f'{BOB}, with a token of his own for port {taken.port}: let me in too',
        answered=f'HTTP {refused.http_status}: {refused}' if refused else 'connected',
        got={'refused with': refused.code if refused else None, 'free': free},
    )


def revoke(cell: Cell) -> Outcome:
    session_id = cell.sessions[ALICE].id
    started = time.monotonic()
    counts = cell.manager.revoke(RequestContext(), 'left_the_project', user_id=ALICE)
    reason = _until(cell, lambda: cell.proxy.cuts.get(session_id), 'left_the_project')
    took = time.monotonic() - started
    if reason is not None:
        cell.proxy.close(session_id)
    return Outcome(
        asked=f'the operator: {ALICE} has left the project, take everything back',
        answered=f'{counts["tokens"]} tokens and {counts["sessions"]} session; {PROXY} was told to cut after '
        f'{took * 1000:.0f} ms',
        got={
            **counts,
            'reason': reason,
            'her token': _validity(cell, cell.grants['port']),
            'free': _free(cell, _ROUTER, ConsoleType.SERIAL),
        },
    )


def expire(cell: Cell) -> Outcome:
    (screen,) = cell.driver.list_consoles(_DESKTOP.uuid)
    wanted = objects.ConsoleAuthToken(
        **{name: getattr(screen, name) for name in objects.ConsoleConnection.fields}
    )
    for ttl in _SHORT_TTLS:
        started = time.monotonic()
        grant = cell.manager.authorize(_user(BOB), wanted, ttl=ttl)
        at_first = _validity(cell, grant)
        if at_first == 'ok':
            break
    later = _until(cell, lambda: _validity(cell, grant), exception.InvalidToken.code)
    took = time.monotonic() - started
    return Outcome(
        asked=f'{BOB}: the screen of {_DESKTOP.name}, with a token for {ttl} s',
        answered=f'valid at first, {later} after {took:.1f} s',
        got={'at first': at_first, 'later': later},
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
        {'user': ALICE, 'host': _DESKTOP.host, 'port': 5900, 'token in the URL': True},
    ),
    Step(
        'The proxy asks whether a token is valid',
        'The place to connect to comes from here and never from the browser. One answer for every bad token.',
        validate,
        {'user': ALICE, 'token in the answer': False, 'made up': 'invalid_token'},
    ),
    Step(
        'The user opens one of four serial ports',
        "The manager chooses a free port, and asks the agent once more whether it is still that guest's.",
        connect,
        {'before': 4, 'after': 3},
    ),
    Step(
        'A second user is refused',
        'Two readers of a serial port would each get half of the output. A unique key decides, not luck.',
        refuse_second,
        {'refused with': 'console_in_use', 'free': 3},
    ),
    Step(
        'Access is taken back while the console is open',
        'Tokens are deleted, and the proxy is told to end what is open; it closes, and the port is free.',
        revoke,
        {
            'tokens': 2,
            'sessions': 1,
            'reason': 'left_the_project',
            'her token': 'invalid_token',
            'free': 4,
        },
    ),
    Step(
        'A token expires by itself',
        "Nobody had to delete it. The database's clock decides, so clocks of other machines may be wrong.",
        expire,
        {'at first': 'ok', 'later': 'invalid_token'},
    ),
    Step(
        'The guest is deleted',
        'No console, token or session stays behind for the next guest that gets its ports.',
        clean,
        {'consoles': None, 'before': 'ok', 'after': 'invalid_token'},
    ),
)
