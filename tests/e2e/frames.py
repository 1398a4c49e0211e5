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


def unpack(data):
    """One msgpack value of the kinds the broker sends, and what is behind it."""
    tag, rest = data[0], data[1:]
    if tag < 0x80:
        return tag, rest
    if tag >= 0xE0:
        return tag - 256, rest
    if 0x80 <= tag <= 0x9F:
        return unpack_items(tag & 0x0F, rest, is_map=tag < 0x90)
    if 0xA0 <= tag <= 0xBF:
        return rest[:tag & 0x1F].decode(), rest[tag & 0x1F:]
    fixed = {0xC0: (None, None), 0xC2: (None, False), 0xC3: (None, True), 0xCA: (">f", 0),
             0xCB: (">d", 0), 0xCC: (">B", 0), 0xCD: (">H", 0), 0xCE: (">I", 0), 0xCF: (">Q", 0),
             0xD0: (">b", 0), 0xD1: (">h", 0), 0xD2: (">i", 0), 0xD3: (">q", 0)}
    if tag in fixed:
        form, value = fixed[tag]
        if form is None:
            return value, rest
        size = struct.calcsize(form)
        return struct.unpack(form, rest[:size])[0], rest[size:]
    sized = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xDC: ">H",
             0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
    size = struct.calcsize(sized[tag])
    count, rest = struct.unpack(sized[tag], rest[:size])[0], rest[size:]
    if tag >= 0xDC:
        return unpack_items(count, rest, is_map=tag >= 0xDE)
    value = rest[:count]
    return (value.decode() if tag in (0xD9, 0xDA, 0xDB) else value), rest[count:]


def unpack_items(count, data, is_map):
    items = []
    for _ in range(count * 2 if is_map else count):
        item, data = unpack(data)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if is_map else items), data


class Connection:
    """One connection; reads are bounded in time."""

    def __init__(self, path: pathlib.Path):
        self.socket = socket.socket(socket.AF_UNIX)
        # Connected first: with a timeout set, a full backlog would be an error instead of a wait.
        self.socket.connect(str(path))
        self.socket.settimeout(DEADLINE_S)

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
