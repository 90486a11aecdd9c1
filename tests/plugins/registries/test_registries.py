"""Registries over real HTTP: what they promise each other, and what becomes of those that do not keep it."""

import json
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from penstock.errors import AccessError, ConflictError, InputError, NotFoundError, PlatformError
from penstock.plugins.registries import Detail
from penstock.plugins.registries.composite import CompositeRegistry
from penstock.plugins.registries.folder import DETAIL, PACKAGE, FolderRegistry
from penstock.plugins.registries.package import pack, unpack
from penstock.plugins.registries.remote import RemoteRegistry
from penstock.plugins.registries.wire import ANSWER_BYTES, precedence
from penstock.processes import wait_until
from tests.plugins.registries.conftest import Site


def published(site: Site, name: str = "licences", version: str = "1.0.0", **files: str) -> None:
    site.remote().publish(name, version, site.packed(name, version, **files).path, None)


def test_plugin_is_published_found_and_fetched(site: Site, tmp_path: Path) -> None:
    """What arrives is, byte for byte, what was published."""
    packed = site.packed("licences", "1.0.0", tool="print('hello')")
    entry = site.remote().publish("licences", "1.0.0", packed.path, None)
    assert (entry.digest, entry.source) == (packed.digest, "hub")
    assert [str(one) for one in site.remote().search("what LICENCES").entries] == ["licences@1.0.0"]
    assert site.remote().search("licences", kind="scanner").entries == ()
    detail = site.remote().get("licences", "1.0.0")
    assert (detail.readme, detail.docs) == ("# Read me", {"index.md": "# Use"})
    site.remote().fetch(entry, tmp_path / "got.tar")
    unpack(tmp_path / "got.tar", tmp_path / "got")
    assert (tmp_path / "got" / "tool").read_text() == "print('hello')"


def test_versions_are_sorted_by_precedence(site: Site) -> None:
    """1.10 is newer than 1.9, and a release than its candidates; a search shows the newest release."""
    for version in ("1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0-rc.11", "1.10.0-beta"):
        published(site, version=version)
    found = [entry.version for entry in site.remote().versions("licences")]
    assert found == ["2.0.0-rc.11", "2.0.0-rc.1", "1.10.0", "1.10.0-beta", "1.9.0"]
    assert [entry.version for entry in site.remote().search().entries] == ["1.10.0"]


def test_precedence_is_that_of_the_specification() -> None:
    """The order that semver.org gives as its example."""
    told = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
    ]
    assert sorted(["1.0.0", *reversed(told)], key=precedence) == [*told, "1.0.0"]


def test_yanked_version_is_not_found_but_stays_where_it_is(site: Site, tmp_path: Path) -> None:
    """Who has it may fetch it again; the search shows the one before; yanking can be taken back."""
    published(site)
    published(site, version="1.1.0")
    entry = site.remote().yank("licences", "1.1.0", "reads too much")
    assert entry.yanked == "reads too much"
    assert [one.version for one in site.remote().search().entries] == ["1.0.0"]
    assert site.remote().versions("licences")[0].yanked == "reads too much"
    site.remote().fetch(entry, tmp_path / "got.tar")
    assert site.remote().yank("licences", "1.1.0", "").yanked is None
    assert [one.version for one in site.remote().search().entries] == ["1.1.0"]


def test_version_never_gets_other_bytes(site: Site) -> None:
    """The same again is taken; anything else is a new version."""
    published(site, tool="one")
    published(site, tool="one")
    with pytest.raises(ConflictError, match="other bytes"):
        published(site, tool="two")


def test_package_that_is_none_is_refused(site: Site) -> None:
    """Nothing is listed that was not looked into."""
    packed = site.packed("licences", "1.0.0")
    with pytest.raises(InputError, match=r"the package is licences@1\.0\.0"):
        site.remote().publish("licences", "1.0.1", packed.path, None)
    packed.path.write_bytes(b"no archive at all")
    with pytest.raises(InputError, match=r"cannot unpack|about\.json"):
        site.remote().publish("licences", "1.0.0", packed.path, None)
    assert site.remote().search().entries == ()


def test_nobody_publishes_without_the_token(site: Site) -> None:
    """Reading is free, writing is not."""
    packed = site.packed("licences", "1.0.0")
    for token in (None, "wrong"):
        with pytest.raises(AccessError, match="does not let us"):
            site.remote(token=token).publish("licences", "1.0.0", packed.path, None)
    published(site)
    with pytest.raises(AccessError):
        site.remote(token=None).yank("licences", "1.0.0", "for fun")


def test_changed_package_is_refused_before_it_is_there(site: Site, tmp_path: Path) -> None:
    """The registry's disk was written to: the digest that was told does not fit any more."""
    published(site)
    entry = site.remote().get("licences", "1.0.0").entry
    (site.folder.root / "licences" / "1.0.0" / PACKAGE).write_bytes(b"something else")
    with pytest.raises(AccessError, match="another digest"):
        site.remote().fetch(entry, tmp_path / "got.tar")
    assert not list(tmp_path.glob("got.tar*"))


def test_answer_is_cached_and_asked_again_when_it_is_old(site: Site) -> None:
    """Five minutes are fresh; after that a changed registry is seen."""
    now = [1000.0]
    remote = site.remote(clock=lambda: now[0])
    published(site)
    assert len(remote.search().entries) == 1
    site.folder.publish(*_another(site))
    assert len(remote.search().entries) == 1, "still fresh"
    now[0] += 301
    assert len(remote.search().entries) == 2


def _another(site: Site) -> tuple[Detail, Path]:
    packed = site.packed("size", "0.1.0")
    entry = msgspec.structs.replace(
        site.folder.get("licences", "1.0.0").entry, name="size", version="0.1.0", digest=packed.digest
    )
    return Detail(entry=entry, manifest={}), packed.path


def test_registry_that_is_away_shows_what_it_said_before(site: Site) -> None:
    """And says that it is old; what was never asked is an error, and one line."""
    now = [1000.0]
    remote = site.remote(clock=lambda: now[0])
    published(site)
    assert remote.search().troubles == ()
    site.stop()
    assert wait_until(lambda: not _listens(site), limit_s=20)
    now[0] += 3600
    found = remote.search()
    assert [str(entry) for entry in found.entries] == ["licences@1.0.0"]
    assert found.troubles[0].stale
    assert "60 min ago" in found.troubles[0].what
    with pytest.raises(PlatformError) as refused:
        remote.versions("other")
    assert str(refused.value).startswith("registry hub: it does not answer")


def _listens(site: Site) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(site.url.rsplit(":", 1)[1]))) == 0


class Odd:
    """A server that answers whatever it was given, as slowly as it was told."""

    def __init__(self, body: bytes, gap_s: float = 0.0) -> None:
        self._body, self._gap_s = body, gap_s
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._socket.close()

    def _serve(self) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\nConnection: close\r\n\r\n".encode()
        try:
            connection, _ = self._socket.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head)
                for start in range(0, len(self._body), 65536 if not self._gap_s else 1):
                    if self._ended.wait(self._gap_s):
                        return
                    connection.sendall(self._body[start : start + (65536 if not self._gap_s else 1)])
        except OSError:
            return


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>welcome</html>", "not understood"),
        (b"[" * 100_000, "not understood"),
        (b'{"plugins": [{"name": "x"}]}', "not understood"),
        (b'{"plugins": "\xff\xfe"}', "not understood"),
        (b" " * (ANSWER_BYTES + 1), "larger than"),
        (
            json.dumps(
                {"plugins": [{"name": "../../x", "version": "1.0.0", "kind": "x", "digest": "x", "size_bytes": 1}]}
            ).encode(),
            "no plugin's name",
        ),
    ],
)
def test_strange_answer_is_one_line(tmp_path: Path, body: bytes, why: str) -> None:
    """No answer, however large or wrong, is believed or ends in a traceback."""
    with Odd(body) as url, pytest.raises(PlatformError, match=why):
        RemoteRegistry("odd", url, tmp_path, allow_private=True).search()


def test_slow_registry_has_an_end(tmp_path: Path) -> None:
    """A byte now and then does not keep anybody waiting for ever."""
    with Odd(b" " * 1000, gap_s=0.05) as url, pytest.raises(PlatformError, match="too slowly"):
        RemoteRegistry("slow", url, tmp_path, allow_private=True, ask_limit_s=0.5).search()


def test_registry_is_asked_only_where_users_may_reach(site: Site) -> None:
    """A registry's address is something that somebody configured."""
    with pytest.raises(AccessError, match="not a public address"):
        site.remote(allow_private=False).search()


def test_own_name_is_never_taken_from_a_stranger(site: Site, tmp_path: Path) -> None:
    """The platform's own plugin wins over a remote's newer version of the same name."""
    own = FolderRegistry(tmp_path / "own")
    published(site, version="9.9.9")
    packed = site.packed("licences", "1.0.0")
    entry = msgspec.structs.replace(
        site.folder.get("licences", "9.9.9").entry, version="1.0.0", digest=packed.digest, size_bytes=packed.size_bytes
    )
    own.publish(Detail(entry=entry, manifest={}), packed.path)
    published(site, name="size")
    both = CompositeRegistry((own, site.remote()))
    assert [(str(one), one.source) for one in both.search().entries] == [
        ("licences@1.0.0", "local"),
        ("size@1.0.0", "hub"),
    ]
    assert [one.version for one in both.versions("licences")] == ["1.0.0"]
    with pytest.raises(NotFoundError):
        both.get("licences", "9.9.9")
    both.fetch(both.get("size", "1.0.0").entry, tmp_path / "size.tar")
    assert (tmp_path / "size.tar").is_file()


def test_remote_that_is_away_leaves_the_others(tmp_path: Path, site: Site) -> None:
    """A search shows what the others have, and who was away; a name that may be the absent one's own is not decided."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    published(site)
    away = RemoteRegistry("gone", gone, tmp_path / "gone", allow_private=True)
    found = CompositeRegistry((away, site.remote())).search()
    assert [str(one) for one in found.entries] == ["licences@1.0.0"]
    assert [trouble.registry for trouble in found.troubles] == ["gone"]
    with pytest.raises(PlatformError, match="may be its own"):
        CompositeRegistry((away, site.remote())).versions("licences")
    assert CompositeRegistry((site.remote(), away)).versions("licences")


def test_version_whose_publishing_was_cut_off_does_not_exist(site: Site) -> None:
    """The package without its detail is nothing, and is written anew."""
    published(site, tool="one")
    (site.folder.root / "licences" / "1.0.0" / DETAIL).unlink()
    with pytest.raises(NotFoundError):
        site.remote(cache=site.scratch / "new").get("licences", "1.0.0")
    published(site, tool="two")
    assert site.folder.versions("licences")[0].digest == site.packed("licences", "1.0.0", tool="two").digest


@pytest.mark.parametrize(
    ("name", "version"), [("../x", "1.0.0"), ("X", "1.0.0"), ("x", "1"), ("x", "../1.0.0"), ("", "1.0.0")]
)
def test_wrong_names_and_versions_are_refused(site: Site, name: str, version: str) -> None:
    """Before anything is asked or written."""
    with pytest.raises(InputError):
        site.folder.get(name, version)
    with pytest.raises(InputError):
        site.remote().get(name, version)


def test_same_folder_is_always_the_same_package(tmp_path: Path) -> None:
    """Whatever the times of its files; what tools left behind is no part of it."""
    folder = tmp_path / "plugin"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "index.md").write_text("# Use")
    first = pack(folder, tmp_path / "a.tar")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "docs" / "index.md").touch()
    assert pack(folder, tmp_path / "b.tar").digest == first.digest
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="no links"):
        pack(folder, tmp_path / "c.tar")
