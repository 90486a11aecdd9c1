"""The hosts that a plugin may reach: how they are written, and whether a connection is to one of them."""

import ipaddress
import re
from collections.abc import Collection, Sequence

import attrs

from penstock.errors import AccessError, InputError
from penstock.webhooks.addresses import check_host

DEFAULT_PORTS = frozenset({80, 443})
_HOST = re.compile(
    r"\.?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)
_REMEDY = "write example.org, example.org:8443, .example.org, 192.0.2.7 or [2001:db8::7]:443"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Rule:
    """
    One entry of an allow-list.

    host: small letters; with a leading dot every name below it, but not itself. ports: 80 and 443 if none is written.
    """

    host: str
    ports: frozenset[int]

    @property
    def address(self) -> Address | None:
        """When it is an IP address rather than a name."""
        return _address(self.host)

    def covers(self, host: str, port: int) -> bool:
        """Whether a connection to `host` is meant by it."""
        if port not in self.ports:
            return False
        name = host.lower().rstrip(".")
        if self.address is not None:
            return _address(name) == self.address
        return name.endswith(self.host) and name != self.host if self.host.startswith(".") else name == self.host


def parse_rule(text: str) -> Rule:
    """
    A rule from `host`, `host:port`, `.domain`, an IPv4 address, or an IPv6 address in brackets.

    Raises: InputError for anything else.
    """
    bare, _, port = text.rpartition(":") if re.search(r":\d+$", text) and not _address(text) else (text, "", "")
    host = bare.removeprefix("[").removesuffix("]").lower().rstrip(".")
    numeric = re.fullmatch(r"[0-9.]+|0x[0-9a-f.]+", host)
    if len(host) > 253 or not (_address(host) or (_HOST.fullmatch(host) and not numeric)):
        raise InputError(f'"{text[:80]}" is no host', remedy=_REMEDY)
    if port and not 0 < int(port) < 65536:
        raise InputError(f'"{text[:80]}" has no usable port', remedy="write one from 1 to 65535")
    return Rule(host, frozenset({int(port)}) if port else DEFAULT_PORTS)


def permitted(rules: Sequence[Rule], host: str, port: int, allow_private: Collection[str]) -> tuple[str, ...]:
    """
    The IP addresses at which a host may be asked.

    allow_private: what the platform's operator has named: private hosts and networks that may be asked.
    Raises: AccessError when no rule covers it, or it leads into a private network that no rule names by its address;
    this machine and what is link-local must have been named by the operator too. PlatformError when the name cannot be
    looked up.
    """
    matching = [rule for rule in rules if rule.covers(host, port)]
    if not matching:
        raise AccessError(f"{host}:{port} is not in the plugin's network list")
    address = next((rule.address for rule in matching if rule.address), None)
    if address is not None and not (address.is_loopback or address.is_link_local or address.is_unspecified):
        return (str(address),)
    return check_host(host.rstrip("."), port, allow_private)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
