"""A worker whose jobs talk to the daemon, and do not do what they are told.

Run as ``command:``.  One rule: the standard library is enough, so that what is tested is the daemon.

Usage: deaf_jobs SOCKET HELLOS: each of these hellos (JSON) is said by a process of its own, one after the
other, which then beats for as long as it lives.  What happens is printed, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time

BEAT = b'{"type":"heartbeat","jobs":1,"late":0}\n'


def tell(**what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def speak(path: str, hello: dict[str, object], welcomed: int) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(json.dumps({"type": "hello", "v": 1, "role": "job", **hello}).encode() + b"\n")
        heard = peer.makefile("rb")
        tell(job=hello["name"], heard=json.loads(heard.readline()))
        os.close(welcomed)
        threading.Thread(target=beat, args=(peer,), daemon=True).start()
        with contextlib.suppress(ConnectionError):  # refused, with a beat on its way
            for line in heard:
                tell(job=hello["name"], heard=json.loads(line))


def beat(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer.sendall(BEAT)
            time.sleep(0.2)


def end_of(pid: int, name: object, since: float) -> None:
    _, status = os.waitpid(pid, 0)
    tell(job=name, ended=os.waitstatus_to_exitcode(status), seconds=time.monotonic() - since)


def main(path: str, hellos: list[dict[str, object]]) -> None:
    for hello in hellos:
        reads, writes = os.pipe()
        since = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reads)
            speak(path, hello, writes)
            os._exit(0)
        os.close(writes)
        os.read(reads, 1)  # until it has been answered
        os.close(reads)
        threading.Thread(target=end_of, args=(pid, hello["name"], since), daemon=True).start()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
