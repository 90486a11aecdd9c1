"""
Names and TLS: the two servers of Caddy that the world sees, beside those of the services on loopback.

One answers on the HTTPS port and leads each name to its service's slots, so that a release switch is what it is without
a name, a few renames. The other, on the HTTP port, sends browsers there and answers an ACME server's questions.

`front.json` holds how the Caddy that runs was started, and everybody who changes its configuration goes by it: a shell
with other settings does not take the names away. `names.json` holds what leads where, for Caddy's next start.
"""

import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from penstock.settings import Settings

HTTP, HTTPS = "names-http", "names-https"
_FRONT_FILE, _NAMES_FILE = "front.json", "names.json"
_MISDIRECTED = {"handler": "static_response", "status_code": 421, "close": True}  # a host that nobody has

Handlers = Callable[[int], list[dict[str, Any]]]


class Front(msgspec.Struct, frozen=True):
    """
    How names are served. host: the address to listen on; "" for all.

    issuer: who makes certificates: an ACME server, or Caddy's own CA. acme_ca: a file of roots to trust that server by.
    """

    host: str
    http_port: int
    https_port: int
    issuer: Literal["acme", "internal"]
    acme_url: str
    acme_email: str | None = None
    acme_ca: str | None = None

    @property
    def ports(self) -> tuple[int, int]:
        """Both that it listens on."""
        return self.http_port, self.https_port


def front_of(settings: Settings) -> Front | None:
    """As the settings say; None when names are not served."""
    if settings.http_port is None or settings.https_port is None:
        return None
    return Front(
        host=settings.http_host,
        http_port=settings.http_port,
        https_port=settings.https_port,
        issuer="internal" if settings.tls == "internal" else "acme",
        acme_url=settings.acme_url,
        acme_email=settings.acme_email,
        acme_ca=str(settings.acme_ca) if settings.acme_ca else None,
    )


def keep_front(folder: Path, front: Front | None) -> None:
    """Said by the process that becomes Caddy."""
    _replace(folder / _FRONT_FILE, msgspec.json.encode(front))


def running_front(folder: Path, settings: Settings) -> Front | None:
    """How Caddy was started; before its first start as the settings say."""
    try:
        return msgspec.json.decode((folder / _FRONT_FILE).read_bytes(), type=Front | None)
    except (FileNotFoundError, msgspec.DecodeError):
        return front_of(settings)


def keep_names(folder: Path, names: Mapping[str, int]) -> None:
    """Name → service port. The caller holds the routing lock."""
    if read_names(folder) != names:
        _replace(folder / _NAMES_FILE, msgspec.json.encode(dict(sorted(names.items()))))


def read_names(folder: Path) -> dict[str, int]:
    """What was kept; nothing when that cannot be read: the keeper writes it again a second later."""
    try:
        return msgspec.json.decode((folder / _NAMES_FILE).read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def servers(front: Front, names: Mapping[str, int], handlers: Handlers, logger: Callable[[int], str]) -> dict[str, Any]:
    """Caddy's two servers. handlers: those of a service port. logger: where its requests are measured."""
    routes = [
        {"match": [{"host": hosts}], "handle": handlers(port), "terminal": True}
        for port, hosts in _hosts_by_port(names).items()
    ]
    return {
        HTTP: {
            "listen": [_listen(front, front.http_port)],
            "protocols": ["h1"],
            "automatic_https": {"disable": True},
            "routes": [
                {"match": [{"host": sorted(names)}], "handle": [_to_https(front)], "terminal": True},
                {"handle": [_MISDIRECTED]},
            ],
        },
        HTTPS: {
            "listen": [_listen(front, front.https_port)],
            "protocols": ["h1", "h2"],
            "automatic_https": {"disable": True},
            "tls_connection_policies": [{}],
            "strict_sni_host": True,
            "logs": {
                "logger_names": {name: [logger(names[name])] for name in sorted(names)},
                "skip_unmapped_hosts": True,
            },
            "routes": [*routes, {"handle": [_MISDIRECTED]}],
        },
    }


def _hosts_by_port(names: Mapping[str, int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in sorted(names):
        found.setdefault(names[name], []).append(name)
    return dict(sorted(found.items()))


def _listen(front: Front, port: int) -> str:
    return f"[{front.host}]:{port}" if ":" in front.host else f"{front.host}:{port}"


def _to_https(front: Front) -> dict[str, Any]:
    """A name with an ACME certificate is reached on 443, whatever port that is forwarded to (RFC 8555, section 8)."""
    port = f":{front.https_port}" if front.issuer == "internal" and front.https_port != 443 else ""
    location = f"https://{{http.request.host}}{port}{{http.request.uri}}"
    return {"handler": "static_response", "status_code": 308, "headers": {"Location": [location]}, "close": True}


def tls_apps(front: Front, names: Collection[str]) -> dict[str, Any]:
    """Caddy's apps that get, keep and renew certificates of these names, and no others."""
    wanted = sorted(names)
    policies = [{"subjects": wanted, "issuers": [_issuer(front)]}]
    tls = {"certificates": {"automate": wanted}, "automation": {"policies": policies}}
    if front.issuer == "acme":
        return {"tls": tls}
    return {"tls": tls, "pki": {"certificate_authorities": {"local": {"install_trust": False}}}}


def _issuer(front: Front) -> dict[str, Any]:
    if front.issuer == "internal":
        return {"module": "internal"}
    ports = {"http": {"alternate_port": front.http_port}, "tls-alpn": {"alternate_port": front.https_port}}
    issuer: dict[str, Any] = {"module": "acme", "ca": front.acme_url, "challenges": ports}
    if front.acme_email:
        issuer["email"] = front.acme_email
    if front.acme_ca:
        issuer["trusted_roots_pem_files"] = [front.acme_ca]
    return issuer


def front_ports(configuration: Mapping[str, Any]) -> set[int]:
    """Those that the two servers of a configuration listen on."""
    made = configuration.get("apps", {}).get("http", {}).get("servers", {})
    listening = [address for name in (HTTP, HTTPS) for address in made.get(name, {}).get("listen", [])]
    return {int(address.rpartition(":")[2]) for address in listening}


def blocked_ports(front: Front, others: Collection[int], shown: Collection[int] = ()) -> tuple[int, ...]:
    """
    Which of its two Caddy could not listen on: it would refuse the whole configuration for one of them.

    others: service ports; one may be older than the setting. shown: ports that Caddy serves names on now.
    """
    free = (port for port in front.ports if port in shown or can_listen(front.host, port))
    return tuple(sorted(set(front.ports) - (set(free) - set(others))))


def can_listen(host: str, port: int) -> bool:
    """Whether this process could listen there now; on all addresses for "", of those kinds that there are."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(_can_bind(family, address) for family, _, _, _, address in found)


def _can_bind(family: int, address: Any) -> bool:
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # a machine without IPv6
        return True
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
