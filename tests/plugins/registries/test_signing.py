"""Signatures on packages."""

from pathlib import Path

import attrs
import msgspec
import pytest

from penstock.errors import AccessError, InputError, NotFoundError
from penstock.plugins.registries import Entry
from penstock.plugins.registries.signing import (
    check_signed,
    distrust,
    make_key,
    read_public_key,
    sign,
    trust,
    trusted_keys,
)
from penstock.settings import Settings, load_settings

ENTRY = Entry(name="size", version="1.0.0", kind="report", digest=f"sha256:{'a' * 64}", size_bytes=10)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"PENSTOCK_HOME": str(tmp_path / "home")})


def signed(entry: Entry, private: Path) -> Entry:
    made = sign(private, entry.name, entry.version, entry.digest)
    return msgspec.structs.replace(entry, signatures=(*entry.signatures, made))


def test_trusted_signature_is_believed(settings: Settings, tmp_path: Path) -> None:
    """And says whose it is; signatures of strangers beside it do no harm."""
    stranger, friend = make_key(tmp_path / "stranger", "who"), make_key(tmp_path / "friend", "the team")
    trust(settings, friend)
    entry = signed(signed(ENTRY, tmp_path / "stranger"), tmp_path / "friend")
    assert check_signed(entry, trusted_keys(settings)) == friend
    assert stranger not in trusted_keys(settings)


@pytest.mark.parametrize("change", [{"digest": f"sha256:{'b' * 64}"}, {"version": "1.0.1"}, {"name": "bigger"}])
def test_signature_is_worth_nothing_on_another_package(
    settings: Settings, tmp_path: Path, change: dict[str, str]
) -> None:
    """Name, version and digest are what was signed."""
    trust(settings, make_key(tmp_path / "key", "the team"))
    entry = msgspec.structs.replace(signed(ENTRY, tmp_path / "key"), **change)
    with pytest.raises(AccessError, match="signature by the team is not of this package"):
        check_signed(entry, trusted_keys(settings))


def test_stranger_and_nobody_are_told_apart(settings: Settings, tmp_path: Path) -> None:
    """Each refusal says what is missing."""
    key = make_key(tmp_path / "key", "who")
    with pytest.raises(AccessError, match="not signed"):
        check_signed(ENTRY, trusted_keys(settings))
    with pytest.raises(AccessError, match=f"not trusted here: {key.id}"):
        check_signed(signed(ENTRY, tmp_path / "key"), trusted_keys(settings))


def test_key_that_is_not_trusted_any_more_counts_for_nothing(settings: Settings, tmp_path: Path) -> None:
    """By its name or its id."""
    key = make_key(tmp_path / "key", "the team")
    trust(settings, key)
    entry = signed(ENTRY, tmp_path / "key")
    assert distrust(settings, "the team") == key
    with pytest.raises(AccessError):
        check_signed(entry, trusted_keys(settings))
    with pytest.raises(NotFoundError):
        distrust(settings, key.id)


@pytest.mark.parametrize("text", ["", "AAAA", "!!!", "A" * 88])
def test_signature_that_is_none_is_a_wrong_one(settings: Settings, tmp_path: Path, text: str) -> None:
    """Whatever stands in its place."""
    trust(settings, make_key(tmp_path / "key", "the team"))
    entry = signed(ENTRY, tmp_path / "key")
    broken = msgspec.structs.replace(entry.signatures[0], signature=text)
    with pytest.raises(AccessError):
        check_signed(msgspec.structs.replace(entry, signatures=(broken,)), trusted_keys(settings))


def test_private_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    """Mode 0600, and a second key needs another file."""
    made = make_key(tmp_path / "key", "the team")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_public_key((tmp_path / "key.pub").read_text()) == made
    with pytest.raises(InputError, match="file exists"):
        make_key(tmp_path / "key", "the team")


@pytest.mark.parametrize("text", ["", "ed25519 AAAA name", "rsa AAAA name", "ed25519 " + "A" * 43 + "= "])
def test_line_that_is_no_key_is_refused(settings: Settings, text: str) -> None:
    """Also where it lies among the trusted ones: fewer keys are no reason to believe more."""
    with pytest.raises(InputError, match="no public key"):
        read_public_key(text)
    (settings.home / "plugins" / "trusted").mkdir(parents=True)
    (settings.home / "plugins" / "trusted" / "x.pub").write_text(text)
    with pytest.raises(InputError) as refused:
        trusted_keys(settings)
    assert "x.pub: this is no public key" in str(refused.value)


def test_file_that_holds_no_private_key_is_refused(tmp_path: Path) -> None:
    """One line each."""
    (tmp_path / "empty").write_text("")
    for path, why in ((tmp_path / "empty", "no key"), (tmp_path / "none", "cannot read")):
        with pytest.raises(InputError, match=why):
            sign(path, "x", "1.0.0", ENTRY.digest)


def test_key_shows_as_one_line(tmp_path: Path) -> None:
    """What is written to a .pub file can be read back, and holds no private half."""
    made = make_key(tmp_path / "key", "dev@example.org")
    assert attrs.evolve(made) == read_public_key(str(made))
    assert "PRIVATE" not in (tmp_path / "key.pub").read_text()
