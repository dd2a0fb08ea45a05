"""A process that accepts and closes connections, and counts when they came.

    probes ──connect──> a few ports of loopback ──> a slot for each moment of CLOCK_MONOTONIC,
                                                    in memory that is shared with whoever asks

It is what the tcp probes of all components are aimed at. A few ports, because a connection that was
closed keeps its pair of ports for a minute, and there are only so many ports to call from.
"""

import os
import selectors
import signal
import socket
import struct
import time
from mmap import mmap

PORTS = 8
SLOTS = 1 << 20
SLOT = struct.Struct("Q")


class Listener:
    """The counting process, for a `with`."""

    def __init__(self, slot_ns):
        self.slot_ns = slot_ns
        self.slots = mmap(-1, SLOTS * SLOT.size)
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(PORTS)]
        self.ports = [one.getsockname()[1] for one in self.sockets]
        self.began = time.monotonic_ns()

    def __enter__(self):
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._accept()
            finally:
                os._exit(1)
        for one in self.sockets:
            one.close()
        return self

    def __exit__(self, *_error):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            # The warden was quicker.
            pass

    def _accept(self):
        ready = selectors.DefaultSelector()
        for one in self.sockets:
            one.setblocking(False)
            ready.register(one, selectors.EVENT_READ)
        while True:
            for key, _events in ready.select():
                try:
                    connection, _whose = key.fileobj.accept()
                except OSError:
                    continue
                connection.close()
                offset = self._slot(time.monotonic_ns()) * SLOT.size
                (count,) = SLOT.unpack_from(self.slots, offset)
                SLOT.pack_into(self.slots, offset, count + 1)

    def _slot(self, now):
        return (now - self.began) // self.slot_ns % SLOTS

    def last(self, count):
        """How many came in each of the last slots that are over."""
        present = self._slot(time.monotonic_ns())
        slots = range(present - count, present)
        return [SLOT.unpack_from(self.slots, slot % SLOTS * SLOT.size)[0] for slot in slots]
