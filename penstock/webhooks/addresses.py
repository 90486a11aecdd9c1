"""
Addresses that users configure: Penstock asks no host for them that only it can reach.

A forge's address leads to whoever answers to its name; a name that leads to 127.0.0.1, into a private network or to a
cloud's metadata service would let a user read there with Penstock's eyes. Names are looked up once, checked, and that
very address is connected to: a name that changes its mind in between changes nothing.
"""

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable
from urllib.parse import urlsplit

from penstock.errors import AccessError, InputError, PlatformError
from penstock.settings import Settings

Allowed = bool | Collection[str]
_SCHEMES = {"https": 443, "http": 80}
_REMEDY = "have the platform's operator name the host in PENSTOCK_ALLOW_PRIVATE_HOSTS"
# Public by their number, and yet not for us: a cloud's metadata, shared address space, IPv4 inside of IPv6.
_REFUSED = tuple(
    map(ipaddress.ip_network, ("100.64.0.0/10", "168.63.129.16/32", "192.0.0.0/24", "64:ff9b::/96", "2002::/16"))
)
Resolve = Callable[[str, int], Iterable[str]]


def check_address(url: str, allow_private: Allowed = False, *, resolve: Resolve | None = None) -> tuple[str, ...]:
    """
    The IP addresses behind a URL, every one of which may be asked.

    allow_private: True, or the host names and networks that may be private, such as git.corp.example or 10.0.0.0/8.
    resolve: host, port → addresses; the machine's own resolver by default.
    Raises: InputError for what is no http(s) address, AccessError for a host that must not be asked, PlatformError
    when the name cannot be looked up.
    """
    host, port = _parts(url)
    return check_host(host, port, allow_private, resolve=resolve)


def check_host(
    host: str, port: int, allow_private: Allowed = False, *, resolve: Resolve | None = None
) -> tuple[str, ...]:
    """The same for a host and port."""
    try:
        found = tuple(dict.fromkeys((resolve or _resolve)(host, port)))
    except (OSError, UnicodeError) as error:
        raise PlatformError(f"the name {host} cannot be looked up", remedy="see that it is right") from error
    if not found:
        raise PlatformError(f"the name {host} has no address", remedy="see that it is right")
    for address in found:
        if not _may_ask(host, address, allow_private):
            raise AccessError(f"{host} is {address}, which is not a public address", where=host, remedy=_REMEDY)
    return found


def _parts(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError("this is no address", where=url[:200], remedy="write https://host/path") from error
    if parts.scheme not in _SCHEMES or not host or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InputError("this is no address", where=url[:200], remedy="write https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InputError("the address holds credentials", where=parts.hostname, remedy="leave them out")
    return host, port or _SCHEMES[parts.scheme]


def _resolve(host: str, port: int) -> Iterable[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _may_ask(host: str, address: str, allow_private: Allowed) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    if is_public(ip) or allow_private is True:
        return True
    return not isinstance(allow_private, bool) and any(_names(one, host, ip) for one in allow_private)


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether everybody can reach it, so that Penstock's own place in the network lends nothing."""
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in _REFUSED)


def _names(allowed: str, host: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if allowed == "*" or allowed.casefold() == host.casefold():
        return True
    try:
        return ip in ipaddress.ip_network(allowed, strict=False)
    except ValueError:
        return False


def allowed_hosts(settings: Settings) -> Allowed:
    """What the platform's settings allow (PENSTOCK_ALLOW_PRIVATE_HOSTS); nothing by default."""
    return settings.allow_private_hosts
