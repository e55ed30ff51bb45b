"""A program to supervise that has no guard, and lends its process to one: whoever connects to it speaks to
the daemon in its name, by the kernel's word.

``python lender.py HERE THERE``: each connection to the socket HERE is joined to one of its own to THERE.
SIGTERM is not heard, so that it lives to the end of what is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys


async def join(here: str, there: str) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(there)
        both = (_pass_on(reader, far_writer), _pass_on(far_reader, writer))
        await asyncio.wait([asyncio.create_task(way) for way in both], return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            end.close()

    async with await asyncio.start_unix_server(accept, here) as server:
        await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(join(sys.argv[1], sys.argv[2]))
