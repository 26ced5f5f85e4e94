# SPDX-License-Identifier: Apache-2.0
"""Serial ports of real guests, limited to one user at a time: when a port becomes free, and for whom."""

import time

from testtools.content import text_content

from consoled.testing import services
from consoled.testing.fixtures import wait_until
from tests.e2e import libvirt as lv
from tests.e2e import test_libvirt

LEASE = 4  # seconds


class SerialTest(test_libvirt.LibvirtTestCase):
    def guest_with_port(self):
        """Return a guest whose BIOS uses its serial port, and a token for that port."""
        domain = self.guest(lv.serial(services.free_port()), firmware=lv.SERIAL_BOOT_MENU)
        return domain, self.get(domain, 'serial')

    def assert_in_use(self, granted):
        _, answer = self.user(granted)
        self.assertEqual(409, answer.status)

    def open_when_free(self, granted):
        """Retry until the port is free, and return a user with a session."""

        def attempt():
            user, answer = self.user(granted)
            self.assertIn(answer.status, (101, 409))
            return user if answer.status == 101 else user.leave()

        return wait_until(attempt, what='a free port')

    def assert_lease_over(self, proxy):
        """Assert that the lease of a proxy is over, by the database's clock."""
        query = 'SELECT name FROM console_proxy WHERE name LIKE :name AND lease_expires > UTC_TIMESTAMP(6)'
        self.assertEqual([], self.rows(query, name=f'{proxy.host}:%'))

    def test_the_port_is_free_for_the_next_user_when_its_user_leaves(self):
        domain, granted = self.guest_with_port()
        first = self.connected(granted)
        self.assert_talks(domain, first)
        self.assert_in_use(granted)
        first.leave()
        self.assert_talks(domain, self.open_when_free(granted))

    def test_invariant_4_the_port_of_a_killed_proxy_is_free_after_its_lease(self):
        self.set(manager__lease=LEASE)
        doomed = self.new_proxy()
        self.useFixture(doomed).wait_ready()
        domain, granted = self.guest_with_port()
        self.assert_talks(domain, self.connected(granted, doomed))
        self.assert_in_use(granted)
        doomed.kill()
        killed = time.monotonic()
        user = self.open_when_free(granted)
        self.assert_lease_over(doomed)
        took = time.monotonic() - killed
        self.addDetail('free after', text_content(f'{took:.2f} s'))
        self.assertLess(took, LEASE + test_libvirt.SLACK)
        self.assert_talks(domain, user)

    def test_a_guest_that_reboots_keeps_its_user(self):
        domain, granted = self.guest_with_port()
        user = self.connected(granted)
        self.assert_talks(domain, user)
        domain.reset()
        self.read_until(user, lv.MENU_PROMPT)
        self.assert_in_use(granted)

    def test_the_port_of_a_guest_that_is_started_again_is_free(self):
        domain, granted = self.guest_with_port()
        user = self.connected(granted)
        self.assert_talks(domain, user)
        domain.destroy()
        self.assertIn(user.close_code(), (4404, 1000, 1011))
        wait_until(lambda: self.token_count(domain) == 0, what='the end of the token')
        domain.create()
        self.wait_for_definition(domain, 1)
        _, answer = self.user(granted)
        self.assertEqual(401, answer.status)
        self.assert_talks(domain, self.connected(self.get(domain, 'serial')))
