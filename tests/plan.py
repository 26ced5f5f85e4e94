# SPDX-License-Identifier: Apache-2.0
"""Balance the workers of a test run by the time that each test class takes.

``python -m tests.plan workers N [REGEX]`` prints a worker file for ``stestr run --worker-file``. stestr
balances too, but by the times of earlier runs, which a fresh checkout does not have, and it leaves out the
set-up of classes.

``python -m tests.plan record`` writes the times of the last run to ``tests/durations.json`` and drops
classes that no longer exist.
"""

import collections
import heapq
import io
import json
import pathlib
import re
import subprocess
import sys

import subunit
import testtools
import yaml

DURATIONS = pathlib.Path(__file__).with_name('durations.json')
SHORTEST = 2.0  # seconds; classes that take less are not recorded
DEFAULT = 0.5  # seconds for a class without a record

_CLASS = re.compile(r'(tests\.[\w.]+)\.\w+')


def balance(names, durations, workers):
    """Distribute classes, longest first, each to the worker with the least to do.

    :param names: of the classes
    :param durations: seconds by name
    :returns: the classes of each worker; workers without any are left out
    """
    weights = {name: durations.get(name, DEFAULT) for name in names}
    loads = [(0.0, number) for number in range(workers)]
    shares = [[] for _ in loads]
    for name in sorted(weights, key=lambda name: (-weights[name], name)):
        load, number = heapq.heappop(loads)
        shares[number].append(name)
        heapq.heappush(loads, (load + weights[name], number))
    return [share for share in shares if share]


def worker_file(shares):
    """Return the text of a worker file, in which each class is an anchored regular expression."""
    return yaml.safe_dump([{'worker': [f'^{re.escape(name)}\\.' for name in share]} for share in shares])


def classes(test_ids):
    """Return the names of the classes of these tests.

    :raises ValueError: one is not a test of this project; it would be left out
    """
    names = set()
    for test_id in test_ids:
        found = _CLASS.match(test_id)
        if found is None:
            raise ValueError(f'{test_id}: not the id of a test')
        names.add(found[1])
    return names


class Stopwatch(testtools.StreamResult):
    """Adds up the seconds of each class from a subunit stream: its tests and the set-up before them.

    :ivar seconds: by class
    """

    def __init__(self):
        super().__init__()
        self.seconds = collections.Counter()
        self._started = None
        self._ended = {}  # by worker: when its last test ended

    def status(self, test_id=None, test_status=None, test_tags=None, timestamp=None, **_):
        found = _CLASS.match(test_id or '')
        if found is None or test_status in (None, 'exists'):
            return
        if test_status == 'inprogress':  # stestr stores the events of each test together, without tags here
            self._started = timestamp
            return
        worker = min((tag for tag in test_tags or () if tag.startswith('worker-')), default='')
        since = self._ended.get(worker, self._started) or timestamp
        self.seconds[found[1]] += (timestamp - since).total_seconds()
        self._ended[worker] = timestamp


def _listed(*regex):
    if not pathlib.Path('.stestr').is_dir():  # the records of this run may lie elsewhere
        subprocess.run(['stestr', 'init'], check=True)
    listing = subprocess.run(['stestr', 'list', *regex], stdout=subprocess.PIPE, text=True)
    if listing.returncode:
        sys.exit(listing.stdout)
    return classes(listing.stdout.split())


def _record():
    stream = subprocess.run(['stestr', 'last', '--subunit'], stdout=subprocess.PIPE).stdout
    stopwatch = Stopwatch()
    subunit.ByteStreamToStreamResult(io.BytesIO(stream), non_subunit_name='output').run(stopwatch)
    existing = _listed()
    known = {name: took for name, took in json.loads(DURATIONS.read_text()).items() if name in existing}
    times = collections.Counter(known | {name: round(took, 1) for name, took in stopwatch.seconds.items()})
    longest_first = {name: took for name, took in times.most_common() if took >= SHORTEST}
    DURATIONS.write_text(json.dumps(longest_first, indent=1) + '\n')


def _main(command, *arguments):
    if command == 'workers':
        workers, *regex = arguments
        print(worker_file(balance(_listed(*regex), json.loads(DURATIONS.read_text()), int(workers))))
    elif command == 'record':
        _record()
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    _main(*sys.argv[1:] or ['help'])
