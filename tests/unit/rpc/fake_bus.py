# SPDX-License-Identifier: Apache-2.0
"""A transport of the fake bus, for all tests of a class."""

from consoled.rpc.transport import get_transport
from consoled.testing import fixtures


def transport(cls):
    """Return a transport that lives as long as a test class."""
    fixture = fixtures.Conf(transport_url='fake:/')
    fixture.setUp()
    cls.addClassCleanup(fixture.cleanUp)
    return get_transport(fixture.conf)
