"""
Where plugins come from: the platform's own registry, others over HTTP, and all of them as one.

    signing     Ed25519 keys, signatures, and which keys are trusted
    package     a plugin's folder as one archive that is always the same bytes
    wire        what registries say to each other: values, limits, addresses
    remote      another registry over HTTP, with a cache
    composite   several as one, the first that knows a name wins
    folder      a registry's plugins as files
    server      a folder served to others: `penstock registry serve`
"""

from penstock.plugins.registries.wire import Detail, Entry, Found, Registry, Trouble

__all__ = ["Detail", "Entry", "Found", "Registry", "Trouble"]
