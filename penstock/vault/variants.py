"""
The forms in which a secret may turn up in what a step prints: pure, bytes → bytes.

A *variant* is a run of bytes that stands for the secret (or for one of its lines) and for nothing else. For
base64 that is the part which the secret alone decides: at an offset of one or two bytes the characters at its
edges also hold bits of the neighbours, up to four bits on each side.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache

SHORTEST_BYTES = 4  # what is shorter is not masked: it would turn up everywhere by chance

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
# What encoders leave as it is besides: RFC 3986; Python's quote; encodeURIComponent; encodeURI; forms in a browser.
_LEFT_AS_IT_IS = (b"~", b"~/", b"~!*'()", b"~!*'();,/?:@&=+$#", b"*")
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_BASE64_STARTS = (0, 2, 3)  # first character that holds bits of the secret alone, by offset
_SHELL_SPECIAL = re.compile(rb"""([ \t'"\\|&;()<>!{}*\[\]?^$`,]|^[#~])""")  # as bash has it
_DOUBLE_QUOTED_SPECIAL = re.compile(rb'([$`"\\])')
_ANSI_C = {7: rb"\a", 8: rb"\b", 9: rb"\t", 10: rb"\n", 11: rb"\v", 12: rb"\f", 13: rb"\r", 27: rb"\E", 39: rb"\'"}


def variants(value: bytes) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """
    Every variant of a secret, of the secret without the white space around it, and of each of its lines.

    Returns: the variants, and those among them (base64 and hex) that tools wrap into lines. All have at least four
    bytes; none for a value that is shorter.
    """
    plain, wrapped = set[bytes](), set[bytes]()
    for part in _parts(value):
        encoded = {part.hex().encode(), part.hex().upper().encode(), *_base64(part)}
        wrapped |= encoded
        plain |= encoded | {part} | _percent_encoded(part) | _json_escaped(part) | _shell_quoted(part) | _python(part)
    return _long_enough(plain), _long_enough(wrapped)


def _long_enough(found: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(each for each in found if len(each) >= SHORTEST_BYTES)


def _parts(value: bytes) -> frozenset[bytes]:
    lines = re.split(rb"[\r\n]+", value)
    return _long_enough((value, value.strip(), *lines, *(line.strip() for line in lines)))


def _base64(part: bytes) -> Iterator[bytes]:
    """At each offset: inside of something longer, at its end, and with the newline that `echo` adds at its end."""
    for offset, start in enumerate(_BASE64_STARTS):
        decided = (offset + len(part)) * 8 // 6
        for ended in (part, part + b"\n"):
            encoded = b64encode(bytes(offset) + ended)
            for found in (encoded[start:decided], encoded[start:].rstrip(b"="), encoded[start:]):
                yield from (found, found.translate(_URLSAFE))


def _percent_encoded(part: bytes) -> set[bytes]:
    found = {b"".join(map(table.__getitem__, part)) for table in _percent_tables()}
    return found | {each.replace(b"%20", b"+") for each in found}


@cache
def _percent_tables() -> tuple[tuple[bytes, ...], ...]:
    """What each byte becomes, for each kind of encoder, with capital and with small digits."""
    return tuple(
        tuple(bytes((byte,)) if byte in _UNRESERVED or byte in left else form % byte for byte in range(256))
        for left in _LEFT_AS_IT_IS
        for form in (b"%%%02X", b"%%%02x")
    )


def _json_escaped(part: bytes) -> set[bytes]:
    """As Python, Go (which also escapes <, > and &), PHP (which also escapes /) and JavaScript write strings."""
    try:
        text = part.decode()
    except UnicodeDecodeError:
        return set()
    found = {json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
    found |= {re.sub(r"[<>&]", lambda match: f"\\u{ord(match[0]):04x}", each) for each in found}
    found |= {each.replace("/", "\\/") for each in found}
    found |= {re.sub(r"\\u[0-9a-f]{4}", lambda match: r"\u" + match[0][2:].upper(), each) for each in found}
    return {each.encode() for each in found}


def _shell_quoted(part: bytes) -> set[bytes]:
    """As shlex and `sh -x` quote it, `printf %q`, inside of double quotes, and as `$'…'`."""
    return {
        part.replace(b"'", b"'\"'\"'"),
        part.replace(b"'", rb"'\''"),
        _SHELL_SPECIAL.sub(rb"\\\1", part),
        _DOUBLE_QUOTED_SPECIAL.sub(rb"\\\1", part),
        *(b"".join(_ansi_c(byte, keep) for byte in part) for keep in (True, False)),
    }


def _ansi_c(byte: int, keep: bool) -> bytes:
    """keep: whether bytes of other alphabets stay, as in a UTF-8 locale, or become octal numbers."""
    if byte == ord("\\"):
        return rb"\\"
    if byte in _ANSI_C:
        return _ANSI_C[byte]
    printable = 32 <= byte < 127 or (keep and byte >= 128)
    return bytes((byte,)) if printable else b"\\%03o" % byte


def _python(part: bytes) -> set[bytes]:
    """As repr() writes it, which tracebacks and printed dicts hold."""
    found = {repr(part)[2:-1]}
    with suppress(UnicodeDecodeError):
        text = part.decode()
        found |= {repr(text)[1:-1], ascii(text)[1:-1]}
    return {each.encode() for each in found}
