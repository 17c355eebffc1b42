"""Keys that TLS and Flower accept, that nobody else may read, and that are never lost."""

import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedlabels.deploy import keys
from fedlabels.deploy.__main__ import main
from fedlabels.deploy.keys import device_names, make_keys, read_certificate, server_hosts
from fedlabels.errors import ConfigError, DataError
from tests.deploy.tls_server import serving
from tests.waiting import LIMIT


def handshake(server, ca, host="localhost", strict=False):
    """Return what a client that trusts ``ca`` learns of the server; raises what it refuses."""
    context = ssl.create_default_context(cafile=str(ca / "ca.crt"))
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        serving(server) as address,
        socket.create_connection((address.host, address.port), timeout=LIMIT) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        return secure.getpeercert()


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "certs"
    make_keys(folder, hosts=["fl.example.org", "10.1.2.3"], count=2)
    return folder


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "fl.example.org", "10.1.2.3"])
def test_a_client_that_trusts_the_authority_connects(fleet, host):
    assert handshake(fleet, fleet, host)["subject"]


def test_the_strictest_checks_pass(fleet):
    # Python 3.13 makes these the default
    assert handshake(fleet, fleet, strict=True)


def test_another_authority_is_refused(fleet, tmp_path):
    make_keys(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(fleet, tmp_path / "other")


def test_another_host_is_refused(fleet):
    with pytest.raises(ssl.SSLCertVerificationError, match="evil"):
        handshake(fleet, fleet, "evil.example.org")


def test_the_servers_certificate_signs_nothing(fleet):
    extensions = read_certificate(fleet / "server.pem").extensions
    assert [e.value.ca for e in extensions if hasattr(e.value, "ca")] == [False]


def test_a_devices_keys_are_what_flower_reads(fleet):
    assert device_names(fleet) == ["device-0", "device-1"]
    for name in device_names(fleet):
        private = load_ssh_private_key((fleet / "devices" / name).read_bytes(), None)
        text = (fleet / "devices" / f"{name}.pub").read_bytes()
        assert text.startswith(b"ecdsa-sha2-nistp384 ")
        assert text.endswith(f" {name}\n".encode())
        public = load_ssh_public_key(text)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP384R1)
        assert private.public_key() == public
    assert len({(fleet / "devices" / n).read_bytes() for n in device_names(fleet)}) == 2


def test_private_files_are_their_owners_alone(fleet):
    for name in ("ca.key", "server.key", "devices/device-0"):
        assert (fleet / name).stat().st_mode & 0o777 == 0o600
    for folder in (fleet, fleet / "devices"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (fleet / ".gitignore").read_text() == "*\n"


def test_a_further_device_is_added_and_nothing_else_changes(tmp_path):
    make_keys(tmp_path, count=1)
    before = contents(tmp_path)
    made = make_keys(tmp_path, devices=["kitchen"])
    assert [path.name for path in made] == ["kitchen", "kitchen.pub"]
    assert [p.name for p in make_keys(tmp_path, count=2)] == ["device-1", "device-1.pub"]
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert make_keys(tmp_path, count=2) == []


def test_an_existing_device_is_refused_before_anything_is_made(tmp_path):
    make_keys(tmp_path, count=1)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"device-0 exists already.*never overwritten"):
        make_keys(tmp_path, devices=["new", "device-0"], hosts=["new.example.org"])
    with pytest.raises(ConfigError, match="exists already"):
        make_keys(tmp_path, devices=["twice", "twice"])
    assert contents(tmp_path) == before


def test_a_further_host_renews_the_certificate_by_the_same_authority(tmp_path):
    make_keys(tmp_path, hosts=["a.example.org"])
    before = contents(tmp_path)
    made = make_keys(tmp_path, hosts=["b.example.org", "A.example.org"])
    assert [path.name for path in made] == ["server.pem"]
    changed = {str(n) for n, data in contents(tmp_path).items() if before[n] != data}
    assert changed == {"server.pem"}
    assert set(server_hosts(tmp_path)) == {
        "localhost", "127.0.0.1", "::1", "a.example.org", "b.example.org",
    }  # fmt: skip
    assert handshake(tmp_path, tmp_path, "a.example.org")
    assert make_keys(tmp_path, hosts=["b.example.org"]) == []


def test_renewal_lasts_longer_with_the_same_keys_and_hosts(tmp_path):
    make_keys(tmp_path, hosts=["a.example.org"], days=30)
    before, first = contents(tmp_path), read_certificate(tmp_path / "server.pem")
    make_keys(tmp_path, renew=True, days=90)
    second = read_certificate(tmp_path / "server.pem")
    longer = second.not_valid_after_utc - first.not_valid_after_utc
    assert timedelta(days=59) < longer < timedelta(days=61)
    assert second.public_key() == first.public_key()
    assert second.serial_number != first.serial_number
    assert "a.example.org" in server_hosts(tmp_path)
    assert handshake(tmp_path, tmp_path)
    assert contents(tmp_path).keys() == before.keys()


def test_a_certificate_does_not_outlive_its_authority(tmp_path):
    past = datetime.now(UTC) - timedelta(days=3640)
    make_keys(tmp_path, now=past)
    make_keys(tmp_path, renew=True, days=365)
    ends = [read_certificate(tmp_path / n).not_valid_after_utc for n in ("ca.crt", "server.pem")]
    assert ends[0] == ends[1]
    with pytest.raises(DataError, match="ended on"):
        make_keys(tmp_path, renew=True, now=datetime.now(UTC) + timedelta(days=20))


def test_an_expired_certificate_is_refused(tmp_path):
    make_keys(tmp_path, days=5, now=datetime.now(UTC) - timedelta(days=10))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hosts": ["fl.example.org:8000"]}, "without a port"),
        ({"hosts": ["https://fl.example.org"]}, "without a port"),
        ({"hosts": ["0.0.0.0"]}, "listens"),
        ({"hosts": ["1.2.3"]}, "name or an IP"),
        ({"hosts": [""]}, "name or an IP"),
        ({"devices": ["../x"]}, "letters, digits"),
        ({"devices": ["x.pub"]}, "letters, digits"),
        ({"count": -1}, ">= 0"),
        ({"days": 0}, r"\[1, 3650\], got 0"),
    ],
)
def test_wrong_arguments_make_nothing(tmp_path, arguments, said):
    with pytest.raises(ConfigError, match=said):
        make_keys(tmp_path / "certs", **arguments)
    assert not (tmp_path / "certs").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    mode = tmp_path.stat().st_mode
    with pytest.raises(ConfigError, match="other files"):
        make_keys(tmp_path)
    assert tmp_path.stat().st_mode == mode
    with pytest.raises(ConfigError, match="cannot be made"):
        make_keys(tmp_path / "thesis.tex" / "certs")


def test_an_empty_folder_is_closed_to_others(tmp_path):
    (tmp_path / "certs").mkdir(mode=0o755)
    make_keys(tmp_path / "certs")
    assert (tmp_path / "certs").stat().st_mode & 0o777 == 0o700


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    (tmp_path / "key").write_bytes(b"another's")
    with pytest.raises(ConfigError, match="never overwritten"):
        keys._write(tmp_path / "key", b"mine", private=True)
    assert (tmp_path / "key").read_bytes() == b"another's"


def test_what_is_missing_or_damaged_is_named(tmp_path):
    make_keys(tmp_path / "a", count=1)
    (tmp_path / "a" / "ca.key").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"ca\.key cannot be read"):
        make_keys(tmp_path / "a", renew=True)
    (tmp_path / "a" / "ca.key").unlink()
    make_keys(tmp_path / "a", devices=["needs-no-authority"])
    make_keys(tmp_path / "b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(DataError, match="is not the key of"):
        make_keys(tmp_path / "a", renew=True)
    (tmp_path / "b" / "ca.crt").unlink()
    with pytest.raises(DataError, match="without"):
        make_keys(tmp_path / "b")
    (tmp_path / "a" / "devices" / "device-0").unlink()
    with pytest.raises(DataError, match="without its private key"):
        make_keys(tmp_path / "a", count=1)


def test_the_command_says_what_it_made(tmp_path, capsys):
    folder = tmp_path / "certs"
    arguments = ["keys", "--out", str(folder), "--host", "fl.example.org", "10.0.0.1"]
    assert main([*arguments, "--devices", "2"]) == 0
    said = capsys.readouterr().out
    assert "devices: device-0, device-1" in said
    assert "localhost, fl.example.org, 127.0.0.1, ::1, 10.0.0.1" in said
    assert str(folder / "ca.crt") in said
    assert main([*arguments, "--device", "device-1"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: device device-1 exists already")
    assert said.err.count("\n") == 1


def test_it_runs_as_a_module_where_hydra_and_ray_are_missing(tmp_path):
    hidden = "import sys\n" + "".join(
        f"sys.modules[{name!r}] = None\n" for name in ("hydra", "omegaconf", "ray", "sklearn")
    )
    code = f"{hidden}import runpy\nsys.argv[1:] = ['keys', '--out', 'certs', '--devices', '1']\n"
    code += "runpy.run_module('fedlabels.deploy', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "certs" / "devices" / "device-0").is_file()
