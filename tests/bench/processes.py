# SPDX-License-Identifier: Apache-2.0
"""Helper processes of a benchmark, and the CPU time of processes and of the machine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import fixtures
import psutil


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used."""
    top = psutil.Process(pid)
    total = 0.0
    for process in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # its own and its reaped children's
    return total


def machine_cpu() -> float:
    """Return the CPU seconds that the whole machine has used."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)  # [:8]: guest times are part of user times


class HelperProcess(fixtures.Fixture):
    """A Python process that takes commands on standard input.

    Parts of a benchmark run in such processes, so that the CPU time of each part is known.

    :param module: the module to run, below ``tests.bench``
    """

    def __init__(self, module: str, *arguments: str) -> None:
        super().__init__()
        self._command = [sys.executable, '-m', f'tests.bench.{module}', *arguments]

    def _setUp(self) -> None:  # noqa: N802 - named by the fixtures library
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.addCleanup(self._process.wait)
        self.addCleanup(self._stdin.close)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def read(self) -> str:
        """Read a line of output.

        :raises RuntimeError: when the process has exited
        """
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f'{self._command} exited with status {self._process.wait()}')
        return line.strip()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command as a line of JSON, and return the response.

        :raises RuntimeError: when the command fails or the process has exited
        """
        print(json.dumps(command), file=self._stdin, flush=True)
        response: dict[str, Any] = json.loads(self.read())
        if 'error' in response:
            raise RuntimeError(response['error'])
        return response
