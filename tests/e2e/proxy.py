"""A proxy between two of millrace's processes, which reads ZMTP's frames and damages messages that it is told to damage. Nothing in the
product knows of it. docs/PROTOCOL.md, "A message", draws what lies in the frames.
"""

import contextlib
import random
import socket
import threading

KINDS = {
    "HELLO": 1, "WELCOME": 2, "REFUSED": 3, "READY": 4, "WHO": 5, "HEARTBEAT": 6, "GOODBYE": 7, "SELF_TEST": 9, "LEASE": 10, "DONE": 11,
    "FAILED": 12, "SETTLED": 13, "SELF_TEST_RESULT": 14, "READ": 20, "DATA": 21, "JOIN": 30, "STEP": 31, "SLICE": 32, "REDUCED": 33,
    "COMMIT": 34, "APPLIED": 35,
}  # fmt: skip
NAMES = {number: name for name, number in KINDS.items()}
MORE, LONG, COMMAND = 1, 2, 4
GREETING_BYTES = 64


def listen(address):
    """At a TCP address (host, port) or a socket's path."""
    listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    listener.bind(address)
    listener.listen()
    return listener


def connect(address):
    peer = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    peer.connect(address)
    return peer


class BlackHole:
    """Takes connections and never says a word."""

    def __init__(self, address):
        self.listener = listen(address)
        self.taken = []
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        with contextlib.suppress(OSError):
            while True:
                self.taken.append(self.listener.accept()[0])

    def close(self):
        for one in [self.listener, *self.taken]:
            one.close()


class Proxy:
    """Takes connections at `address` and leads them to `target`. judge(way, kind) is asked for every message, by one thread at a time; way
    is "up" to the target and "down" from it. True: one bit of the message is flipped."""

    def __init__(self, address, target, judge, seed):
        self.target, self.judge, self.random = target, judge, random.Random(seed)
        self.lock = threading.Lock()
        self.ends = []
        self.listener = listen(address)
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        with contextlib.suppress(OSError):
            while True:
                here = self.listener.accept()[0]
                try:
                    there = connect(self.target)
                except OSError:
                    here.close()
                    continue
                self.ends += [here, there]
                for way, source, sink in (("up", here, there), ("down", there, here)):
                    threading.Thread(target=self.lead, args=(way, source, sink), daemon=True).start()

    def lead(self, way, source, sink):
        with contextlib.suppress(OSError, EOFError):
            stream = source.makefile("rb")

            def take(size):
                data = stream.read(size)
                if len(data) < size:
                    raise EOFError
                return bytearray(data)

            left = GREETING_BYTES  # each side waits for the beginning of the other's before it sends the rest
            while left:
                piece = stream.read1(left)
                if not piece:
                    raise EOFError
                sink.sendall(piece)
                left -= len(piece)
            parts = []
            while True:
                start = take(1)
                start += take(8 if start[0] & LONG else 1)
                body = take(int.from_bytes(start[1:], "big"))
                if start[0] & COMMAND:
                    sink.sendall(start + body)
                    continue
                parts.append((start, body))
                if start[0] & MORE:
                    continue
                self.look(way, [body for _, body in parts])
                sink.sendall(b"".join(bytes(start + body) for start, body in parts))
                parts = []
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def look(self, way, frames):
        header = frames[0]
        kind = NAMES.get(header[3], "?") if len(header) > 3 and header[0] == 0x08 and header[2] == 0x10 else "?"
        with self.lock:
            if not self.judge(way, kind):
                return
            bit = self.random.randrange(8 * sum(map(len, frames)))
        for frame in frames:
            if bit < 8 * len(frame):
                frame[bit // 8] ^= 1 << bit % 8
                return
            bit -= 8 * len(frame)

    def part(self):
        """Breaks the newest connection."""
        with contextlib.suppress(OSError, IndexError):
            self.ends[-1].shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                end.close()
