"""Names of images, read as Docker reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InputError
from penstock.images.names import is_pinned, parse_image

HASH = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", "latest", None),
        ("team/shop:1.0", "docker.io", "team/shop", "1.0", None),
        ("docker.io/team/shop", "docker.io", "team/shop", "latest", None),
        ("localhost/shop", "localhost", "shop", "latest", None),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", "x", None),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", None),
        (f"ghcr.io/a/b@{HASH}", "ghcr.io", "a/b", None, HASH),
        (f"ghcr.io/a/b:1@{HASH}", "ghcr.io", "a/b", "1", HASH),
    ],
)
def test_name_is_taken_apart(text: str, registry: str, path: str, tag: str | None, digest: str | None):
    """Registry, repository, tag, digest."""
    name = parse_image(text)
    assert (name.registry, name.path, name.tag, name.digest) == (registry, path, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Shop", "a//b", "a:", ":1", "a:b:c", "a@", "a@sha256:12", "a b", "a:-1", "-a", "a/../b", "https://a/b"),
        *("a:" + "x" * 129, "a" * 600, "user:pass@registry/a", "a\nb", "ä"),
    ],
)
def test_what_is_no_name_is_refused(text: str):
    """In one line, with an example."""
    with pytest.raises(InputError, match=r"no name of an image; write registry\.example/team/app:1\.0"):
        parse_image(text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading(text: str):
    """It is a name whose parts give the same name again, or it is refused."""
    try:
        name = parse_image(text)
    except InputError:
        return
    assert parse_image(str(name)) == name


def test_only_ids_and_digests_are_pinned():
    """A tag can come to mean another image."""
    assert is_pinned(HASH)
    assert is_pinned(f"a@{HASH}")
    assert not is_pinned("a:1.0")


@pytest.mark.parametrize(
    ("text", "is_loopback"), [("127.8.0.1:5/a", True), ("[::1]:5/a", True), ("10.0.0.1:5/a", False)]
)
def test_loopback_is_told_from_elsewhere(text: str, is_loopback: bool):
    """Plain HTTP is for this machine."""
    assert parse_image(text).loopback is is_loopback
