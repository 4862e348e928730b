"""What attackers do: the connections that they make and hold, and what they send on each."""

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

SMALL_BUFFER = 4096
BIG = b"GET /big HTTP/1.1\r\nHost: shop.example\r\n\r\n"
SMALL = b"GET /small HTTP/1.1\r\nHost: shop.example\r\n\r\n"
BODY = b"POST /small HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\n"
PROXY_HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
HEAD_BYTES, HELLO_BYTES = 15 * 1024, 8 * 1024
CHUNKS = 1_000_000


@dataclass(frozen=True)
class Held:
    """Connections that stay: their memory is measured."""

    name: str
    # What the listener expects: tcp, http, proxy (a PROXY header first) or hello (a ClientHello).
    listener: str
    sent: bytes = b""
    # None: as the kernel chooses.
    receive_buffer: int | None = None
    # An answer of this many bytes is read.
    reads: int = 0

    def connect(self, address):
        """One attacker; what its socket doesn't take is not sent."""
        client = open_client(address, self.receive_buffer)
        if self.reads:
            client.sendall(self.sent)
            while len(client.recv(65536)) == 0:
                pass
        client.setblocking(False)
        if not self.reads and self.sent:
            try:
                client.send(self.sent)
            except (BlockingIOError, ConnectionError):
                pass
        return client


def open_client(address, receive_buffer=None):
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(address)
    return client


def half_a_hello():
    """The first bytes of a ClientHello that says it has 16 KiB: one record, whose rest never comes."""
    return (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(HELLO_BYTES))[:HELLO_BYTES]


HELD = [
    Held("tcp silent", "tcp"),
    Held("half a PROXY v1 header", "proxy", PROXY_HEADER[:20]),
    Held("half a ClientHello, 8 KiB", "hello", half_a_hello()),
    Held("half an http head, 15 KiB", "http", SMALL[:-2] + b"X-A: " + b"a" * HEAD_BYTES),
    Held("http slow body", "http", BODY + b"b"),
    Held("http idle after a GET", "http", SMALL, reads=1),
    Held("tcp never reads, rcvbuf 4096", "tcp", BIG, SMALL_BUFFER),
    Held("tcp never reads, default rcvbuf", "tcp", BIG),
    Held("http never reads 1 GiB", "http", BIG, SMALL_BUFFER),
    Held("20 x GET /big pipelined, never reads", "http", BIG * 20, SMALL_BUFFER),
    Held("4,000 GETs pipelined behind a stalled one", "http", BIG + SMALL * 4000, SMALL_BUFFER),
]


@dataclass(frozen=True)
class Spent:
    """Work that a proxy is made to do: its CPU time is measured."""

    name: str
    listener: str
    # Makes `count` of it; the result is the number that was made.
    work: object
    count: int


def connect_and_close(address, count):
    for _ in range(count):
        open_client(address).close()
    return count


def connect_and_reset(address, count):
    for _ in range(count):
        client = open_client(address)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    return count


def read_answers(client, count):
    seen = 0
    while seen < count:
        got = client.recv(1 << 20)
        if not got:
            break
        seen += len(re.findall(rb"HTTP/1\.1 200", got))
    return seen


def one_by_one(address, count):
    client = open_client(address)
    for _ in range(count):
        client.sendall(SMALL)
        read_answers(client, 1)
    return count


def pipelined(address, count):
    client = open_client(address)
    for _ in range(0, count, 100):
        client.sendall(SMALL * 100)
        # An answer whose first bytes are cut apart isn't counted: what comes after it is.
        read_answers(client, 99)
    return count


def one_byte_chunks(address, count):
    client = open_client(address)
    client.sendall(b"POST /small HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"1\r\nx\r\n" * 10_000
    try:
        for _ in range(0, count, 10_000):
            client.sendall(chunks)
        client.sendall(b"0\r\n\r\n")
        client.recv(65536)
    except ConnectionError:
        # The origin refuses the method, and needs no more of the body.
        pass
    return count


SPENT = [
    Spent("connect, close: tcp", "tcp", connect_and_close, 5_000),
    Spent("connect, close: http", "http", connect_and_close, 5_000),
    Spent("connect, RST: tcp", "tcp", connect_and_reset, 5_000),
    Spent("connect, RST: http", "http", connect_and_reset, 5_000),
    Spent("GET, one by one", "http", one_by_one, 5_000),
    Spent("GET, 20,000 pipelined", "http", pipelined, 20_000),
    Spent("chunk of 1 byte, of 1,000,000", "http", one_byte_chunks, CHUNKS),
]
