# SPDX-License-Identifier: Apache-2.0
"""Serial ports of real guests, each of which one user has: when they come free, and who has them then."""

import time

from testtools.content import text_content

from consoled.testing import services
from consoled.testing.fixtures import wait_until
from tests.e2e import libvirt as lv
from tests.e2e import test_libvirt

LEASE = 4  # seconds


class SerialTest(test_libvirt.AgentCase):
    def guest_with_port(self):
        """A guest with a serial port at which its BIOS talks, and a token for it."""
        domain = self.guest(lv.serial(services.free_port()), firmware=lv.TALKS)
        return domain, self.get(domain, 'serial')

    def assert_in_use(self, granted):
        _, answer = self.user(granted)
        self.assertEqual(409, answer.status)

    def opens_again(self, granted, timeout=30):
        """A user with a session, as soon as one can be had."""

        def attempt():
            user, answer = self.user(granted)
            self.assertIn(answer.status, (101, 409))
            return user if answer.status == 101 else user.leave()

        return wait_until(attempt, timeout=timeout, what='a free port')

    def test_the_port_is_the_next_users_when_its_user_leaves(self):
        domain, granted = self.guest_with_port()
        first = self.connected(granted)
        self.assert_talks(domain, first)
        self.assert_in_use(granted)
        first.leave()
        self.assert_talks(domain, self.opens_again(granted))

    def test_invariant_4_the_port_of_a_proxy_that_was_killed_is_free_after_its_lease(self):
        self.set(manager__lease=LEASE)
        doomed = self.new_proxy()
        self.useFixture(doomed).wait_ready()
        domain, granted = self.guest_with_port()
        self.assert_talks(domain, self.connected(granted, doomed))
        self.assert_in_use(granted)
        doomed.kill()
        killed = time.monotonic()
        self.assert_in_use(granted)
        user = self.opens_again(granted)
        took = time.monotonic() - killed
        self.addDetail('free after', text_content(f'{took:.2f} s'))
        self.assertLess(took, LEASE + test_libvirt.SLACK)
        self.assert_talks(domain, user)

    def test_a_guest_that_reboots_keeps_its_user(self):
        domain, granted = self.guest_with_port()
        user = self.connected(granted)
        self.assert_talks(domain, user)
        domain.reset()
        self.hears(user, lv.ASKS)
        self.assert_in_use(granted)

    def test_a_guest_that_is_started_again_has_its_port_for_the_next_user(self):
        domain, granted = self.guest_with_port()
        user = self.connected(granted)
        self.assert_talks(domain, user)
        domain.destroy()
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        wait_until(lambda: self.tokens_of(domain) == 0, what='the end of the token')
        domain.create()
        self.known(domain, 1)
        _, answer = self.user(granted)
        self.assertEqual(401, answer.status)
        self.assert_talks(domain, self.connected(self.get(domain, 'serial')))
