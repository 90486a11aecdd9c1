"""Pebble, a real ACME server, and a resolver by which every name is this machine; validation is the real one."""

import datetime
import ipaddress
import json
import os
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from penstock.processes import spawn, stop_group, wait_until


@attrs.frozen
class Pebble:
    """It asks for a name's proof at `http_port` and `https_port`. ca: of its own address, not of what it issues."""

    url: str
    management: str
    ca: Path
    log: Path

    def roots(self) -> str:
        """PEM of the root that everything it issues is signed by; another one at each start."""
        return self._fetch(f"{self.management}/roots/0")

    def orders(self) -> int:
        """How many certificates it issued."""
        return self.log.read_text().count("Issued certificate serial")

    def answers(self) -> bool:
        try:
            return "newOrder" in self._fetch(self.url)
        except OSError:
            return False

    def _fetch(self, url: str) -> str:
        trusting = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(url, timeout=10, context=trusting) as answer:
            return str(answer.read().decode())


@contextmanager
def running_pebble(folder: Path, first_port: int, *, http_port: int, https_port: int) -> Iterator[Pebble]:
    """Three ports in a row are taken: the directory's, the management's, the resolver's."""
    listen, management, dns = (f"127.0.0.1:{first_port + n}" for n in range(3))
    make_authority(folder)
    configuration = {
        "listenAddress": listen,
        "managementListenAddress": management,
        "certificate": str(folder / "acme.pem"),
        "privateKey": str(folder / "acme.key"),
        "httpPort": http_port,
        "tlsPort": https_port,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))
    resolve = ["pebble-challtestsrv", "-dns01", dns, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]
    resolve += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", ""]
    serve = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", dns]
    env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1"}
    pebble = Pebble(f"https://{listen}/dir", f"https://{management}", folder / "ca.pem", folder / "pebble.log")
    with pebble.log.open("ab") as output:
        started = [spawn(argv, output=output, env=env) for argv in (resolve, serve)]
        try:
            assert wait_until(pebble.answers, limit_s=20), pebble.log.read_text()
            yield pebble
        finally:
            for process in started:
                stop_group(process, grace_s=5)


def make_authority(folder: Path) -> None:
    """A CA of one's own, `ca.pem`, and a certificate of it for loopback, `acme.pem` and `acme.key`."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the tests' own CA")])
    root = _certificate(issuer, issuer, authority.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (folder / "ca.pem").write_bytes(root.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme")])
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = _certificate(subject, issuer, key.public_key()).add_extension(loopback, critical=False)
    (folder / "acme.pem").write_bytes(leaf.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "acme.key").write_bytes(written)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
