"""Objects between processes of one machine: pickled, their arrays through memory that both map."""

import mmap
import os
import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

INLINE = 1 << 16
"""Bytes of arrays up to which they go through the socket: mapping memory costs more."""

_HEAD = struct.Struct("<QQ?")
_ALIGN = 64


@dataclass
class Parcel:
    """A packed object; can be sent to several processes, which then share its memory.

    Parameters
    ----------
    data : bytes
        The pickled object without its arrays.
    sizes : sequence of int
        Bytes of each array.
    inline : bytes
        The arrays, unless they lie in a file.
    file : int or None
        Descriptor of the file in memory that holds the arrays, each on a multiple of 64.
    """

    data: bytes
    sizes: Sequence[int]
    inline: bytes = b""
    file: int | None = None

    def close(self) -> None:
        """Let go of the memory; those who received it keep it as long as they look at it."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


def pack(value: Any) -> Parcel:
    """Pack an object.

    Raises
    ------
    pickle.PicklingError, AttributeError, TypeError
        If something in it cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [len(part) for part in raw]
    if sum(sizes) <= INLINE or not hasattr(os, "memfd_create"):
        return Parcel(data, sizes, b"".join(raw))
    file = os.memfd_create("fedlabels")
    os.ftruncate(file, sum(map(_room, sizes)))
    start = 0
    for part in raw:
        # not through a mapping, whose pages would be cleared one by one before they are written
        done = 0
        while done < len(part):
            done += os.pwrite(file, part[done:], start + done)
        start += _room(len(part))
    return Parcel(data, sizes, b"", file)


def _room(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


class _Follows:
    """Stands in a request for a parcel that is sent after it."""


class Channel:
    """One end of a pair of connected sockets.

    Parameters
    ----------
    connection : socket.socket
        A stream socket of this machine (``AF_UNIX`` where arrays are to go through memory).
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, value: Any) -> None:
        """Send an object; see :meth:`send_parcel`."""
        parcel = pack(value)
        try:
            self.send_parcel(parcel)
        finally:
            parcel.close()

    def send_parcel(self, parcel: Parcel) -> None:
        """Send a packed object.

        Raises
        ------
        OSError
            If nobody is at the other end any more.
        """
        sizes = struct.pack(f"<{len(parcel.sizes)}Q", *parcel.sizes)
        mapped = parcel.file is not None
        head = _HEAD.pack(len(parcel.data), len(parcel.sizes), mapped)
        self._socket.sendall(head + sizes + parcel.data + parcel.inline)
        if parcel.file is not None:
            socket.send_fds(self._socket, [b"m"], [parcel.file])

    def receive(self) -> Any:
        """Wait for an object; its arrays are read-only where they are in shared memory.

        Raises
        ------
        EOFError
            If nobody is at the other end any more.
        """
        length, count, mapped = _HEAD.unpack(self._read(_HEAD.size))
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        data = self._read(length)
        if not mapped:
            inline = memoryview(self._read(sum(sizes)))
            return pickle.loads(data, buffers=_cut(inline, sizes, sizes))
        _, files, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not files:
            raise EOFError("the other process is gone")
        try:
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            memory = memoryview(mmap.mmap(files[0], 0, flags=flags, prot=mmap.PROT_READ))
        finally:
            os.close(files[0])
        return pickle.loads(data, buffers=_cut(memory, sizes, [_room(size) for size in sizes]))

    def send_request(self, name: str, arguments: Sequence[Any]) -> None:
        """Send a name and arguments; a parcel among them arrives as what is in it."""
        parcels = [value for value in arguments if isinstance(value, Parcel)]
        plain = [_Follows() if isinstance(value, Parcel) else value for value in arguments]
        self.send((name, plain))
        for parcel in parcels:
            self.send_parcel(parcel)

    def receive_request(self) -> tuple[str, list[Any]]:
        """Wait for a name and arguments; see `receive` for what it raises."""
        name, plain = self.receive()
        return name, [self.receive() if isinstance(v, _Follows) else v for v in plain]

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        view, place = memoryview(content), 0
        while place < size:
            received = self._socket.recv_into(view[place:])
            if not received:
                raise EOFError("the other process is gone")
            place += received
        return content

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _cut(memory: memoryview, sizes: Sequence[int], room: Sequence[int]) -> list[memoryview]:
    parts, start = [], 0
    for size, step in zip(sizes, room, strict=True):
        parts.append(memory[start : start + size])
        start += step
    return parts
