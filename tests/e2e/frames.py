"""Frames on the broker's socket as raw bytes: a small msgpack writer and a connection."""

import pathlib
import re
import socket
import struct

from support import DEADLINE_S, ROOT

VERSION = 1
FRAME_BYTES_MAX = 65 * 1024 * 1024
TYPES = {name: int(number) for name, number in re.findall(
    r"^X\((\w+), (\d+),", (ROOT / "common/tbl/frames.def").read_text(), re.MULTILINE)}


def pack(value):
    """A value as msgpack: None, bool, int, str, bytes, list, dict."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return pack_int(value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(
        pack(k) + pack(v) for k, v in value.items())


def pack_int(value):
    if 0 <= value < 128:
        return bytes([value])
    return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)


def header(length, kind, version=VERSION, reserved=0):
    number = TYPES[kind] if isinstance(kind, str) else kind
    return struct.pack(">IBBH", length, version, number, reserved)


def frame(kind, payload):
    """A whole frame; `payload` is bytes, or a value to pack."""
    data = payload if isinstance(payload, bytes) else pack(payload)
    return header(len(data), kind) + data


class Connection:
    """One connection; reads are bounded in time."""

    def __init__(self, path: pathlib.Path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Sends; a peer that hung up meanwhile is not an error here."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def read_exact(self, length):
        """Exactly so many bytes, or fewer at the end of the connection."""
        data = b""
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                break
            data += part
        return data

    def read_frame(self):
        """(type, payload) of the next frame; None at the end."""
        head = self.read_exact(8)
        if len(head) < 8:
            return None
        length, _, kind, _ = struct.unpack(">IBBH", head)
        return kind, self.read_exact(length)

    def read_types(self):
        """The types of all frames up to the end of the connection."""
        kinds = []
        while (got := self.read_frame()) is not None:
            kinds.append(got[0])
        return kinds

    def hello(self):
        self.send(frame("HELLO", ["test"]))
        got = self.read_frame()
        assert got is not None and got[0] == TYPES["WELCOME"], got
        return self
