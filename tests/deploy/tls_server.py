"""A server on loopback that stands for a proxied SuperLink: TLS by a folder's keys, or without."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from fedlabels.deploy.address import Address
from tests.waiting import LIMIT


@contextmanager
def serving(keys: Path | None, *, status: int = 200, date: str | None = None) -> Iterator[Address]:
    """Answer GET /health with a status, and a Date of choice."""

    class Handler(BaseHTTPRequestHandler):
        timeout = LIMIT

        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return date or super().date_time_string(timestamp)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        if keys is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(keys / "server.pem", keys / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Address("127.0.0.1", port)
        finally:
            server.shutdown()
            thread.join()
