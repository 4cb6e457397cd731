"""
A backend that writes down what it gets, run as a program: C{recorder.py HOST PORT FILE}.

Each request has an C{X-Id}.  A line C{begun ID METHOD} is written when its head has
come, and C{whole ID METHOD} when its body has, both before anything is answered; so
what is in the file was here, and what is not never was, even after C{kill -9}.  The
answer is the id and the body's digest, and for C{/long} some more bytes.
"""

import asyncio
import hashlib
import os
import sys

PAD = bytes(range(256)) * 64


async def connected(reader, writer, record):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            method, target, _ = lines[0].split(b" ")
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in lines[1:])
            }
            name = fields.get(b"x-id", b"-")
            os.write(record, b"begun %s %s\n" % (name, method))
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            os.write(record, b"whole %s %s\n" % (name, method))
            digest = hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()
            answer = name + b" " + digest + (b" " + PAD if target == b"/long" else b"")
            # A little work, so that something is always under way.
            await asyncio.sleep(0.002)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(host, port, path):
    record = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    server = await asyncio.start_server(
        lambda reader, writer: connected(reader, writer, record), host, port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
