"""
A small vulnerability database in Trivy's own format, for the real one cannot be had offline.

The file is a bbolt database: four pages of metadata, an empty list of free pages, and one leaf page whose
values hold all that is nested, in line. Source: https://github.com/etcd-io/bbolt, page.go and bucket.go
"""

import datetime as dt
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = 4096
_META, _FREE, _LEAF, _BUCKET = 0x04, 0x10, 0x02, 0x01

ADVISORIES: dict[str, Any] = {
    "data-source": {
        "pip::GitHub Security Advisory Pip": {
            "ID": "ghsa",
            "Name": "GitHub Security Advisory Pip",
            "URL": "https://github.com/advisories?query=type%3Areviewed+ecosystem%3Apip",
        },
        "debian 12": {"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://security-tracker.debian.org"},
    },
    "pip::GitHub Security Advisory Pip": {
        "django": {
            "CVE-2019-14234": {"PatchedVersions": ["2.2.4"], "VulnerableVersions": [">= 2.2, < 2.2.4"]},
            "CVE-2030-0001": {"VulnerableVersions": [">= 2.0"]},
        }
    },
    "debian 12": {"openssl": {"CVE-2023-5363": {"FixedVersion": "3.0.11-1~deb12u2"}}},
    "vulnerability": {
        "CVE-2019-14234": {"Title": "SQL injection", "Severity": "CRITICAL", "VendorSeverity": {"ghsa": 4}},
        "CVE-2030-0001": {"Title": "Made up, not mended", "Severity": "HIGH", "VendorSeverity": {"ghsa": 3}},
        "CVE-2023-5363": {"Title": "Key length", "Severity": "HIGH", "VendorSeverity": {"debian": 3}},
    },
}


def write_database(folder: Path, advisories: Mapping[str, Any] = ADVISORIES) -> None:
    """`db/trivy.db` and `db/metadata.json` in a cache folder of Trivy's, good for a year."""
    (folder / "db").mkdir(parents=True, exist_ok=True)
    (folder / "db" / "trivy.db").write_bytes(bolt_file(advisories))
    (folder / "db" / "metadata.json").write_text(metadata())


def metadata() -> str:
    now = dt.datetime.now(dt.UTC)
    times = {"UpdatedAt": now, "NextUpdate": now + dt.timedelta(days=365), "DownloadedAt": now}
    return json.dumps({"Version": 2, **{name: time.isoformat() for name, time in times.items()}})


def database_layer() -> bytes:
    """The database as a registry holds it: a compressed archive of its two files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in {"trivy.db": bolt_file(ADVISORIES), "metadata.json": metadata().encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def bolt_file(content: Mapping[str, Any]) -> bytes:
    """Nested mappings as buckets, everything else as JSON."""
    leaf = _leaf(content, number=3)
    pages = -(-len(leaf) // PAGE)
    root = bytearray(leaf.ljust(pages * PAGE, b"\0"))
    root[12:16] = struct.pack("<I", pages - 1)
    free = struct.pack("<QHHI", 2, _FREE, 0, 0).ljust(PAGE, b"\0")
    return _meta(0, 3 + pages) + _meta(1, 3 + pages) + free + bytes(root)


def _meta(number: int, high_water: int) -> bytes:
    body = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, 3, 0, 2, high_water, number)
    page = struct.pack("<QHHI", number, _META, 0, 0) + body + struct.pack("<Q", _fnv1a(body))
    return page.ljust(PAGE, b"\0")


def _leaf(content: Mapping[str, Any], *, number: int = 0) -> bytes:
    entries = sorted((key.encode(), *_value(value)) for key, value in content.items())
    heads, data = b"", b""
    for index, (key, value, flags) in enumerate(entries):
        position = 16 * (len(entries) - index) + len(data)
        heads += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return struct.pack("<QHHI", number, _LEAF, len(entries), 0) + heads + data


def _value(value: Any) -> tuple[bytes, int]:
    if isinstance(value, dict) and all(isinstance(one, dict) for one in value.values()) and value:
        return struct.pack("<QQ", 0, 0) + _leaf(value), _BUCKET
    return json.dumps(value).encode(), 0


def _fnv1a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
