# SPDX-License-Identifier: Apache-2.0
"""Users who race for the free serial ports of a guest, on MariaDB."""

import collections
import concurrent.futures

from consoled import exception
from tests.functional import base

PORTS = (10000, 10001, 10002, 10003)
USERS = 12
ROUNDS = 5


class RacesTest(base.CellTestCase):
    options = {
        'manager__check_port': False,  # an agent has threads for two users of a guest at a time
        'manager__check_port_timeout': 30.0,  # for as long a user goes from one free port to the next
    }

    def race(self, *choices):
        """Let users open sessions at once, all with tokens for the first port.

        :param choices: the serial port that each of them has chosen, or None
        :returns: how many have got each port, and how many were refused (None)
        """
        self.instance = base.new_uuid()
        self.define(*PORTS)
        proxy = self.proxy()
        tokens = [self.authorize(PORTS[0]).token for _ in choices]

        def open_session(token, choice):
            try:
                return proxy.open(token, serial_port=choice).console.port
            except exception.ConsoleInUse:
                return None

        with concurrent.futures.ThreadPoolExecutor(len(choices)) as pool:
            return collections.Counter(pool.map(open_session, tokens, choices))

    def test_invariant_3_each_next_free_port_goes_to_one_user(self):
        self.set(serial_console__other_ports='next')
        for _ in range(ROUNDS):
            expected = dict.fromkeys(PORTS, 1) | {None: USERS - len(PORTS)}
            self.assertEqual(expected, self.race(*[None] * USERS))

    def test_invariant_3_a_chosen_port_goes_to_one_user_and_the_others_are_refused(self):
        for _ in range(ROUNDS):
            self.assertEqual({PORTS[1]: 1, None: USERS - 1}, self.race(*[2] * USERS))

    def test_invariant_3_choices_and_the_next_free_port_do_not_meet(self):
        self.set(serial_console__other_ports='next')
        for _ in range(ROUNDS):
            found = self.race(*[2, 3, None, None] * (USERS // 4))
            self.assertEqual({1}, {found[port] for port in PORTS})
