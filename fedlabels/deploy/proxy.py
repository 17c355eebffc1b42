"""The reverse proxy before a SuperLink: what devices need passes, and nothing else does.

A SuperLink serves devices, orders and its own processes on one port. So it listens on 127.0.0.1,
and nginx stands at the address that devices know. Each path that passes is named here, and what is
sent on is that very path, without what a client may have written around it.
"""

from pathlib import Path

from fedlabels.deploy.address import Address
from fedlabels.deploy.keys import CA_CERTIFICATE, CERTIFICATE, KEY
from fedlabels.errors import ConfigError

FLEET = "/v1/fleet"
HEALTH = "/health"
PASSED = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "pull-object",
    "push-object",
    "confirm-message-received",
)
"""What a SuperNode with a registered key calls below `FLEET` (flwr 1.41, 1.42)."""
WITHHELD = ("register-node", "unregister-node")
"""What only a SuperNode without a key calls there."""
MOST = 8
"""MiB of one request: Flower sends an array in pieces of 5 MiB."""


def site(listen: str, superlink: str, keys: Path) -> str:
    """Return the part of nginx's configuration that belongs into its ``http`` block.

    Parameters
    ----------
    listen : str
        ``HOST:PORT`` or ``PORT``, as nginx has it.
    superlink : str
        ``HOST:PORT`` of the SuperLink, whose certificate is valid for ``localhost``.
    keys : Path
        Folder with the server's certificate and key, and the authority's certificate.
    """
    ca, certificate, key = (keys / name for name in (CA_CERTIFICATE, CERTIFICATE, KEY))
    return f"""\
upstream fedlabels_superlink {{
    server {superlink};
    keepalive 16;
    keepalive_timeout 2s;  # uvicorn closes after 5 s: a request must not meet a closed connection
}}

server {{
    listen {listen} ssl;
    ssl_certificate "{certificate}";
    ssl_certificate_key "{key}";
    ssl_protocols TLSv1.2 TLSv1.3;
    server_tokens off;

    # One request: Flower sends an array in pieces of 5 MiB. Nothing is written to disk.
    client_max_body_size {MOST}m;
    client_body_buffer_size {MOST}m;
    proxy_buffering off;

    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate "{ca}";
    proxy_ssl_name localhost;

    location = {HEALTH} {{
        limit_except GET {{ deny all; }}
        proxy_pass https://fedlabels_superlink{HEALTH};
    }}

    # What a device with a registered key calls, and no other path.
    location ~ ^{FLEET}/({"|".join(PASSED)})$ {{
        limit_except POST {{ deny all; }}
        proxy_pass https://fedlabels_superlink{FLEET}/$1;
    }}

    location / {{
        return 403;
    }}
}}
"""


def configuration(listen: str, superlink: str, keys: Path, work: Path) -> str:
    """Return a whole configuration of nginx, for ``nginx -e stderr -c FILE`` as any user.

    Parameters
    ----------
    listen, superlink, keys
        As in `site`.
    work : Path
        Folder for the process id and for temporary files.
    """
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "\n".join(f'    {kind}_temp_path "{work / kind}";' for kind in kinds)
    inner = "\n".join(f"    {line}".rstrip() for line in site(listen, superlink, keys).splitlines())
    return f"""\
daemon off;
worker_processes auto;
pid "{work / "nginx.pid"}";
error_log stderr;

events {{
    worker_connections 1024;
}}

http {{
    access_log off;
{places}

{inner}
}}
"""


def write_proxy(out: Path, listen: Address | int, superlink: Address, keys: Path) -> Path:
    """Write a configuration of nginx, and the folder that it works in beside it.

    Parameters
    ----------
    out : Path
        The file; replaced if it exists.
    listen : Address or int
        Where devices reach the server, or a port on all of its addresses.
    superlink : Address
        The SuperLink, on this machine.
    keys : Path
        Folder of the keys.

    Returns
    -------
    Path
        The file, absolute.

    Raises
    ------
    ConfigError
        If the SuperLink is elsewhere, a file is missing, or a path cannot stand in it.
    """
    if not superlink.loopback:
        raise ConfigError(
            f"the SuperLink must listen on this machine alone (127.0.0.1), got {superlink}: start "
            "it with --host 127.0.0.1, and the proxy beside it"
        )
    if superlink.port == (listen if isinstance(listen, int) else listen.port):
        raise ConfigError(f"proxy and SuperLink need two ports, got {superlink.port} twice")
    out, keys = out.expanduser().absolute(), keys.expanduser().absolute()
    missing = [keys / n for n in (CA_CERTIFICATE, CERTIFICATE, KEY) if not (keys / n).is_file()]
    if missing:
        raise ConfigError(f"{missing[0]} is missing: python -m fedlabels.deploy keys --help")
    for path in (out, keys):
        if set(str(path)) & set('"\\$;{}\n'):
            raise ConfigError(f"nginx cannot read the path {str(path)!r}: use letters and digits")
    work = out.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    where = str(listen)
    out.write_text(configuration(where, str(superlink), keys, work), "utf-8")
    return out
