# SPDX-License-Identifier: Apache-2.0
"""A guest that shows what is typed into it, and repeats it on its serial port."""

import pathlib

from tests.e2e.qemu import Qemu

READY = '>'

# A boot sector for the BIOS: write ">" to the first serial port, then each character that is typed, which is
# also written to the screen.
_PROGRAM = bytes.fromhex(
    '31c0 8ed8 fb'  # xor ax, ax; mov ds, ax; sti
    'b03e baf803 ee'  # mov al, '>'; mov dx, 3f8h; out dx, al
    '30e4 cd16 50'  # next: xor ah, ah; int 16h (read a key); push ax
    'bafd03 ec a820 74fb'  # mov dx, 3fdh; ready: in al, dx; test al, 20h; jz ready
    '58 baf803 ee'  # pop ax; mov dx, 3f8h; out dx, al
    'b40e bb0700 cd10'  # mov ah, 0eh; mov bx, 7; int 10h (write a character)
    'ebe5'  # jmp next
)
_BOOT_SECTOR = _PROGRAM.ljust(510, b'\0') + b'\x55\xaa'


class TypedGuest(Qemu):
    """A QEMU process with a VNC console.

    :param directory: for its files
    """

    def __init__(self, directory):
        self._output = pathlib.Path(directory) / 'serial'
        disk = pathlib.Path(directory) / 'disk'
        disk.write_bytes(_BOOT_SECTOR)
        super().__init__(
            *(
                '-drive',
                f'file={disk},format=raw',
                '-serial',
                f'file:{self._output}',
                '-vnc',
                '127.0.0.1:{vnc}',
            )
        )

    @property
    def text(self):
        """``READY`` and what has been typed."""
        return self._output.read_bytes().decode('ascii', 'replace').replace('\r', '\n')
