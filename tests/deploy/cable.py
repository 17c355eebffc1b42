"""A cable between a device and its server, which breaks after so many bytes."""

import contextlib
import socket
import threading


class Cable:
    """Passes connections on to a port of this machine, until it breaks.

    Parameters
    ----------
    port : int
        Of the server.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._entry = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._entry.getsockname()[1]
        self.broken = threading.Event()
        self._left: int | None = None  # bytes up until it breaks
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, count: int) -> None:
        """Break once so many more bytes have gone up."""
        with self._lock:
            self._left = count

    def mend(self) -> None:
        """Pass connections on again."""
        with self._lock:
            self._left = None
        self.broken.clear()

    def close(self) -> None:
        """Break for good."""
        self._entry.close()
        self._break()

    def _break(self) -> None:
        self.broken.set()
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                device, _ = self._entry.accept()
                if self.broken.is_set():
                    device.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server))
                with self._lock:
                    self._ends += [device, server]
                for here, there, up in ((device, server, True), (server, device, False)):
                    ends = (here, there, up)
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(4096):
                if up and self._spend(len(data)):
                    self._break()
                    return
                there.sendall(data)
        for end in (here, there):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _spend(self, count: int) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= count
            return self._left < 0
