"""Names under which a service is reached: host names, as certificates and DNS know them."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from penstock.errors import InputError

MOST_DOMAINS = 50
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST = 253


def _check_domain(text: str) -> None:
    """RFC 1123, section 2.1; a last label of digits alone is an address."""
    labels = text.split(".")
    well = len(text) <= _LONGEST and len(labels) > 1 and all(_LABEL.fullmatch(label) for label in labels)
    if not well or labels[-1].isdecimal():
        raise InputError(f'"{text[:80]}" is no name of a host', where="domains", remedy=_remedy(text))


def _remedy(text: str) -> str:
    if "*" in text:
        return "name each host: wildcards need a challenge by DNS, which is not there"
    if "://" in text or "/" in text or ":" in text:
        return "write the host alone, without scheme, port and path"
    if not text.isascii():
        return "write it as DNS does, with xn--"
    if text != text.lower():
        return "write it in lower case"
    return "write one such as shop.example.org"


def check_domains(domains: Sequence[str]) -> None:
    """Raises: InputError when one is no complete host name in lower case, stands there twice, or they are too many."""
    for domain in domains:
        _check_domain(domain)
    if twice := [domain for domain in domains if domains.count(domain) > 1]:
        raise InputError(f"{twice[0]} stands there twice", where="domains", remedy="leave one out")
    if len(domains) > MOST_DOMAINS:
        raise InputError(f"{len(domains)} names are too many", where="domains", remedy=f"give up to {MOST_DOMAINS}")


def _validated(domains: tuple[str, ...]) -> tuple[str, ...]:
    try:
        check_domains(domains)
    except InputError as error:
        raise ValueError(f"{error.what}; {error.remedy}") from error
    return domains


Domains = Annotated[tuple[str, ...], AfterValidator(_validated)]
