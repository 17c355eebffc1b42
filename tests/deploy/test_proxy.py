"""The proxy that ships: devices' paths and the health check pass, nothing else gets through."""

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from fedlabels.deploy import proxy
from fedlabels.deploy.__main__ import main
from fedlabels.deploy.address import Address
from fedlabels.deploy.keys import make_keys
from fedlabels.deploy.link import Link, examine_link
from fedlabels.errors import ConfigError
from tests.waiting import LIMIT, wait_for

REPO = Path(__file__).resolve().parents[2]
nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, count=1)
    return folder


@contextmanager
def upstream(keys):
    """Stand for a SuperLink: answer everything with 200, and note what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, len(body), dict(self.headers)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def served(keys, tmp_path_factory):
    with upstream(keys) as (behind, asked):
        port = free_port()
        file = tmp_path_factory.mktemp("proxy") / "nginx.conf"
        arguments = ["proxy", "--keys", str(keys), "--out", str(file)]
        listen, superlink = f"127.0.0.1:{port}", f"127.0.0.1:{behind}"
        assert main([*arguments, "--listen", listen, "--superlink", superlink]) == 0
        process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(file)])
        try:
            wait_for(lambda: listens(port), process)
            yield port, asked
        finally:
            process.terminate()
            process.wait(LIMIT)


def listens(port):
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def ask(keys, port, method, path, body=b"", headers=()):
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    link = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=LIMIT)
    try:
        link.request(method, path, body=body or None, headers=dict(headers))
        reply = link.getresponse()
        return reply.status, reply.read()
    finally:
        link.close()


@nginx
def test_what_devices_call_passes(keys, served):
    port, asked = served
    signed = {"flwr-public-key": "a", "flwr-signature": "b", "flwr-timestamp": "c"}
    for name in proxy.PASSED:
        del asked[:]
        body = name.encode() * 100
        said = ask(keys, port, "POST", f"/v1/fleet/{name}?x=1", body, signed.items())
        assert said == (200, body)
        ((method, path, size, headers),) = asked
        assert (method, path, size) == ("POST", f"/v1/fleet/{name}", len(body))
        assert signed.items() <= {key.lower(): value for key, value in headers.items()}.items()
    assert ask(keys, port, "GET", "/health")[0] == 200


OTHERS = [
    ("POST", "/v1/control/made-up"),
    ("POST", "/v1/control/list-runs"),
    ("POST", "/v1/runtime/made-up"),
    ("POST", "/v1/runtime/get-nodes"),
    ("POST", "/v1/fleet/register-node"),
    ("POST", "/v1/fleet/made-up"),
    ("POST", "/v1/fleet/"),
    ("POST", "/v1/fleet/get-run/more"),
    ("POST", "/V1/FLEET/get-run"),
    ("POST", "/health/more"),
    ("GET", "/v1/fleet/get-run"),
    ("PUT", "/v1/fleet/get-run"),
    ("POST", "/health"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
    ("GET", "/made-up"),
]


@nginx
@pytest.mark.parametrize(("method", "path"), OTHERS)
def test_nothing_else_reaches_the_server(method, path, keys, served):
    port, asked = served
    del asked[:]
    assert ask(keys, port, method, path)[0] == 403
    assert asked == []


@nginx
def test_a_request_has_a_bound(keys, served):
    port, asked = served
    del asked[:]
    piece = b"x" * (5 * 2**20 + 4096)  # an array's piece, as Flower makes them, in its envelope
    assert ask(keys, port, "POST", "/v1/fleet/push-object", piece) == (200, piece)
    del asked[:]
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as plain:
        context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        with context.wrap_socket(plain, server_hostname="localhost") as link:
            size = proxy.MOST * 2**20 + 1
            head = (
                f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            )
            link.sendall(head.encode())
            assert link.recv(4096).startswith(b"HTTP/1.1 413")
    assert asked == []


@nginx
def test_doctor_looks_at_the_address_from_outside(keys, served):
    port, _ = served
    link = Link(Address("127.0.0.1", port), keys / "ca.crt")
    findings = {f.name: f for f in examine_link(link, datetime.now(UTC))}
    assert findings["health"].ok
    assert findings["proxy"].ok
    with upstream(keys) as (behind, _):
        link = Link(Address("127.0.0.1", behind), keys / "ca.crt")
        findings = {f.name: f for f in examine_link(link, datetime.now(UTC))}
    assert not findings["proxy"].ok
    assert "answers more than devices need" in findings["proxy"].text


def test_every_path_of_this_flower_is_known():
    """A new Flower tells us here: a path that devices call and the proxy does not know of."""
    from fastapi.routing import iter_route_contexts
    from flwr.superlink.main import create_app

    paths = {
        str(getattr(found.route, "path", "")) for found in iter_route_contexts(create_app().routes)
    }
    fleet = {path for path in paths if path.startswith("/v1/fleet/")}
    known = {f"{proxy.FLEET}/{name}" for name in (*proxy.PASSED, *proxy.WITHHELD)}
    assert fleet == known
    assert proxy.HEALTH in paths


def test_what_ships_is_what_is_tested():
    shipped = (REPO / "deploy" / "nginx" / "fedlabels.conf").read_text()
    assert shipped.endswith(proxy.site("8000", "127.0.0.1:8001", Path("/etc/fedlabels")))
    inside = (REPO / "deploy" / "docker" / "nginx.conf").read_text()
    made = proxy.configuration("8000", "server:8000", Path("/certs"), Path("/tmp"))
    assert inside.endswith(made)


def test_containers_reach_what_they_need():
    compose = yaml.safe_load((REPO / "deploy" / "docker" / "compose.yaml").read_text())
    inside = [name for name, network in compose["networks"].items() if network.get("internal")]
    for name, service in compose["services"].items():
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        if name.startswith("device"):
            assert service["networks"] == inside  # no internet, no other way to the server
    assert not set(inside) & set(compose["services"]["server"]["networks"])


def test_units_have_bounds():
    for name in ("fedlabels-superlink.service", "fedlabels-supernode@.service"):
        text = (REPO / "deploy" / "systemd" / name).read_text()
        assert "--host 127.0.0.1 " in text
        for line in ("MemoryMax=", "TasksMax=", "UMask=0077", "ProtectProc=invisible"):
            assert f"\n{line}" in text


def test_what_cannot_be_a_proxy(keys, tmp_path):
    out, here = tmp_path / "nginx.conf", Address("127.0.0.1", 8001)
    for listen, superlink, folder, said in (
        (8000, Address("10.0.0.1", 8001), keys, "127.0.0.1"),
        (8001, here, keys, "two ports"),
        (8000, here, tmp_path, "is missing"),
    ):
        with pytest.raises(ConfigError, match=said):
            proxy.write_proxy(out, listen, superlink, folder)
    with pytest.raises(ConfigError, match="cannot read the path"):
        proxy.write_proxy(tmp_path / "a$b.conf", 8000, here, keys)
    for port in ("0", "70000"):
        arguments = ["proxy", "--keys", str(keys), "--listen", port, "--out", str(out)]
        assert main([*arguments, "--superlink", "127.0.0.1:8001"]) == 1
    assert not out.exists()
