# SPDX-License-Identifier: Apache-2.0
"""A module ``libvirt`` whose connections fail, hang and end when a test wants it."""

import threading


class LibvirtError(Exception):
    def __init__(self, code=38):
        super().__init__(f'error {code}')
        self._code = code

    def get_error_code(self):
        return self._code


class FakeDomain:
    """A domain.

    :param job: operation of its job (None: it has no job), or the error that jobStats raises
    """

    def __init__(self, state=(1, 1), xml="<domain id='1'/>", active=True, job=None, uuid=None):
        self._state, self._xml, self._active, self._job, self._uuid = state, xml, active, job, uuid

    def UUIDString(self):  # noqa: N802 - libvirt's name
        return self._uuid

    def state(self):
        return self._state

    def XMLDesc(self):  # noqa: N802 - libvirt's name
        return self._xml

    def isActive(self):  # noqa: N802 - libvirt's name
        return self._active

    def jobStats(self):  # noqa: N802 - libvirt's name
        if isinstance(self._job, Exception):
            raise self._job
        return {} if self._job is None else {'operation': self._job}


class FakeConnection:
    """A connection: ``alive`` is what libvirt's keep-alive has found, ``users`` counts threads in a call."""

    def __init__(self, library):
        self.library = library
        self.alive = True
        self.closed = False
        self.users = 0
        self.registered = {}
        self.close_callback = None

    def __getattr__(self, name):
        raise AssertionError(f'not in the fake: {name}')

    def _answer(self, value):
        assert not self.closed
        self.users += 1
        self.library.most_users = max(self.library.most_users, self.users)
        if self.library.hangs is not None:
            self.library.hangs.wait()
        self.users -= 1
        if self.library.failure is not None:
            raise self.library.failure
        return value

    def registerCloseCallback(self, callback, opaque):  # noqa: N802 - libvirt's name
        self.close_callback = callback

    def unregisterCloseCallback(self):  # noqa: N802 - libvirt's name
        self.close_callback = None

    def setKeepAlive(self, interval, count):  # noqa: N802 - libvirt's name
        self._answer(None)

    def domainEventRegisterAny(self, domain, event, callback, opaque):  # noqa: N802 - libvirt's name
        self._answer(None)
        self.registered[event] = callback
        return event

    def domainEventDeregisterAny(self, event):  # noqa: N802 - libvirt's name
        del self.registered[event]
        if not self.alive:
            raise LibvirtError()

    def listAllDomains(self):  # noqa: N802 - libvirt's name
        return self._answer([])

    def lookupByUUIDString(self, instance):  # noqa: N802 - libvirt's name
        self._answer(None)
        if instance not in self.library.domains:
            raise LibvirtError(self.library.VIR_ERR_NO_DOMAIN)
        return self.library.domains[instance]

    def getLibVersion(self):  # noqa: N802 - libvirt's name
        return self._answer(9000000)

    def isAlive(self):  # noqa: N802 - libvirt's name
        return int(self.alive)

    def close(self):
        self.closed = True


class FakeLibrary:
    """The part of the module ``libvirt`` that the driver uses.

    :ivar opened: all connections
    :ivar most_users: how many threads used one connection at once, at most
    :ivar refuses: whether connections are refused
    :ivar failure: raised by each call
    :ivar hangs: an event that each call waits for
    :ivar domains: the domains by UUID
    """

    libvirtError = LibvirtError  # noqa: N815 - libvirt's name
    VIR_ERR_NO_DOMAIN = 42
    VIR_ERR_NO_SUPPORT = 3
    VIR_DOMAIN_PAUSED = 3
    VIR_DOMAIN_SHUTDOWN = 4
    VIR_DOMAIN_PAUSED_MIGRATION = 2
    VIR_DOMAIN_PAUSED_STARTING_UP = 11
    VIR_DOMAIN_PAUSED_POSTCOPY = 12
    VIR_DOMAIN_PAUSED_POSTCOPY_FAILED = 13
    VIR_DOMAIN_JOB_OPERATION = 'operation'
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN = 4
    VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT = 5
    VIR_DOMAIN_EVENT_ID_LIFECYCLE = 0
    VIR_DOMAIN_EVENT_ID_DEVICE_ADDED = 19
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = 15

    def __init__(self):
        self.opened = []
        self.most_users = 0
        self.refuses = False
        self.failure = None
        self.hangs = None
        self.domains = {}
        self._never = threading.Event()

    def registerErrorHandler(self, handler, context):  # noqa: N802 - libvirt's name
        pass

    def virEventRegisterDefaultImpl(self):  # noqa: N802 - libvirt's name
        pass

    def virEventRunDefaultImpl(self):  # noqa: N802 - libvirt's name
        self._never.wait()

    def openReadOnly(self, uri):  # noqa: N802 - libvirt's name
        if self.refuses:
            raise LibvirtError()
        self.opened.append(FakeConnection(self))
        return self.opened[-1]
