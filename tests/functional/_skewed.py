# SPDX-License-Identifier: Apache-2.0
"""The manager daemon with a clock that is off by CLOCK_OFF_BY seconds, for all Python code it runs.

libfaketime would affect C code too, but Python's timed waits hang under it.
"""

import datetime
import os
import sys
import time

OFF_BY = float(os.environ['CLOCK_OFF_BY'])
_real_time, _real_datetime = time.time, datetime.datetime


class SkewedDatetime(_real_datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_real_time() + OFF_BY, tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls):
        return cls.now()


time.time = lambda: _real_time() + OFF_BY
time.time_ns = lambda: int(time.time() * 1e9)
datetime.datetime = SkewedDatetime

if __name__ == '__main__':
    from consoled.cmd import manager

    sys.exit(manager.main())
