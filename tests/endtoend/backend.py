"""
A backend for the tests, run as a program: C{backend.py PORT NAME [CERTIFICATE
KEY [CLIENT_CA]]}; with a certificate it speaks TLS.

Speaks HTTP/1.1 by hand, so that a test can have what no ordinary server does.
The first part of the path says what happens:

  - C{/}: its name.
  - C{/head}: the request's head as it came.
  - C{/echo}: the request's body.
  - C{/sink}: how much came, its digest, and whether it was chunked, as JSON.
  - C{/held}: the answer waits until somebody asks for C{/release}.
  - C{/waiting}: how many requests are held, as JSON.
  - C{/busy/SECONDS}: its name, after so long.
  - C{/most}: how many requests were C{busy} at once, at most and in the mean over
    time, since this was asked last, as JSON.
  - C{/flow/BYTES}: so many bytes, chunked, each MiB with its number in front.
  - C{/flowed}: how many of them were written so far, as JSON.
  - C{/accepted}: how many connections came so far, as JSON.
  - C{/ws}: a WebSocket that echoes frames; says C{hello} first.
  - C{/status/CODE}: an empty answer.

TERM ends it gracefully: what is under way is answered, with a farewell.
"""

import asyncio
import base64
import hashlib
import json
import signal
import ssl
import struct
import sys
import time

MIB = 1 << 20


class Busy:
    """How many requests are under way, over time."""

    def __init__(self):
        self.now = 0
        self.begin()

    def begin(self):
        self.since = self.changed = time.monotonic()
        self.most = self.now
        self.area = 0.0

    def change(self, by):
        at = time.monotonic()
        self.area += self.now * (at - self.changed)
        self.changed = at
        self.now += by
        self.most = max(self.most, self.now)

    def __enter__(self):
        self.change(1)

    def __exit__(self, *error):
        self.change(-1)

    def told(self):
        self.change(0)
        said = {"most": self.most, "mean": self.area / (self.changed - self.since)}
        self.begin()
        return said


class Site:
    """What the connections share."""

    def __init__(self, name):
        self.name = name.encode()
        self.release = asyncio.Event()
        self.waiting = 0
        self.flowed = 0
        self.accepted = 0
        self.busy = Busy()
        self.ending = False
        self.idle = set()
        self.tasks = set()

    async def connected(self, reader, writer):
        self.accepted += 1
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            while not self.ending:
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                if not await self.answer(head, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.idle.discard(writer)
            self.tasks.discard(task)
            writer.close()

    async def answer(self, head, reader, writer):
        """@return: whether the connection goes on."""
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        what, _, argument = target.partition(b"?")[0][1:].partition(b"/")
        if what == b"ws":
            await self.websocket(fields, reader, writer)
            return False
        status, body = 200, self.name
        if what == b"sink":
            body = await self.sink(fields, reader)
        else:
            given = b"".join([part async for part in parts(fields, reader)])
            if what == b"head":
                body = head
            elif what == b"echo":
                body = given
            elif what == b"held":
                await self.hold()
            elif what == b"busy":
                with self.busy:
                    await asyncio.sleep(float(argument))
            elif what == b"most":
                body = json.dumps(self.busy.told()).encode()
            elif what == b"waiting":
                body = json.dumps(self.waiting).encode()
            elif what == b"release":
                self.release.set()
                self.release = asyncio.Event()
                body = b"null"
            elif what == b"accepted":
                body = json.dumps(self.accepted).encode()
            elif what == b"flowed":
                body = json.dumps(self.flowed).encode()
            elif what == b"status":
                status, body = int(argument), b""
            elif what == b"flow":
                await self.flow(int(argument), writer)
                return True
        last = self.ending or fields.get(b"connection") == b"close"
        farewell = b"Connection: close\r\n" if last else b""
        head = b"HTTP/1.1 %d Said\r\nX-Server: %s\r\n%sContent-Length: %d\r\n\r\n" % (
            (status, self.name, farewell, len(body))
        )
        # In one piece: who is killed between two cannot be replaced unnoticed.
        writer.write(head if method == b"HEAD" else head + body)
        await writer.drain()
        return not farewell

    async def hold(self):
        self.waiting += 1
        try:
            await self.release.wait()
        finally:
            self.waiting -= 1

    async def sink(self, fields, reader):
        size, digest = 0, hashlib.sha1(usedforsecurity=False)
        async for part in parts(fields, reader):
            size += len(part)
            digest.update(part)
        return json.dumps(
            {
                "bytes": size,
                "sha1": digest.hexdigest(),
                "chunked": fields.get(b"transfer-encoding") == b"chunked",
            }
        ).encode()

    async def flow(self, size, writer):
        self.flowed = 0
        block = bytearray(MIB)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while self.flowed < size:
            block[:8] = struct.pack(">Q", self.flowed // MIB)
            part = bytes(block[: size - self.flowed])
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            self.flowed += len(part)
        writer.write(b"0\r\n\r\n")

    async def websocket(self, fields, reader, writer):
        accept = hashlib.sha1(
            fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
            usedforsecurity=False,
        ).digest()
        # The first frame goes out with the head.
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n" + frame(1, b"hello")
        )
        while True:
            opcode, payload = await read_frame(reader)
            writer.write(frame(opcode, payload))
            await writer.drain()
            if opcode == 8:
                return

    async def end(self):
        self.ending = True
        for writer in list(self.idle):
            writer.close()
        if self.tasks:
            await asyncio.wait(list(self.tasks))


async def parts(fields, reader):
    """The body, piece by piece."""
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            while size:
                part = await reader.readexactly(min(size, MIB))
                size -= len(part)
                yield part
            await reader.readexactly(2)
        await reader.readexactly(2)
        return
    left = int(fields.get(b"content-length", b"0"))
    while left:
        part = await reader.read(min(left, MIB))
        if not part:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(part)
        yield part


def frame(opcode, payload):
    """A WebSocket frame as servers send it: unmasked."""
    size = len(payload)
    if size < 126:
        length = struct.pack(">B", size)
    elif size < 65536:
        length = struct.pack(">BH", 126, size)
    else:
        length = struct.pack(">BQ", 127, size)
    return bytes([0x80 | opcode]) + length + payload


async def read_frame(reader):
    """
    A masked frame.

    @return: its opcode and payload.
    """
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack(">H", await reader.readexactly(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", await reader.readexactly(8))[0]
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(size)
    key = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")
    return first & 0x0F, plain.to_bytes(size, "big")


def tls_of(certificate, key, client_ca=""):
    """Who the backend is, and whom it lets in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def main(port, name, *files):
    """Serve until TERM."""
    site = Site(name)
    tls = tls_of(*files) if files else None
    server = await asyncio.start_server(
        site.connected, "127.0.0.1", port, limit=MIB, backlog=1024, ssl=tls
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()
    await site.end()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
