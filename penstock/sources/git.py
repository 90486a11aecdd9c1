"""The git command: mirrors, heads, files at a commit, checkouts."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs

from penstock.errors import InputError, NotFoundError, PlatformError
from penstock.sources.command import Bounds, TooLarge, git
from penstock.sources.login import Login, given_to_git
from penstock.sources.reaching import Reach, pinned

_LATEST_S = 253_402_300_799  # the last second of the year 9999: a commit may claim any time, datetime ends there
FORKS, PULL_REQUESTS = "refs/penstock/forks", "refs/penstock/pull-requests"  # in mirrors
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LARGEST_POINTER_BYTES = 1024
# Filters are commands of this machine's own configuration; Git LFS would fetch from wherever the repository says.
_NO_LFS = ("-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false")


@attrs.frozen
class Limits:
    """
    What a repository may take.

    mirror_bytes: of its packs. packs: before they are joined, each fetch brings one. checkout_bytes, files: of one
    commit's files. fetch_s: of bringing a mirror up to date.
    """

    mirror_bytes: int = 20 * 1024**3
    checkout_bytes: int = 20 * 1024**3
    files: int = 1_000_000
    fetch_s: float = 900.0
    packs: int = 50


LIMITS = Limits()


@attrs.frozen
class Remote:
    """
    Where a repository is, and who Penstock is there; without a login whoever runs Penstock.

    reach: which hosts git may go to; public ones alone by default.
    """

    url: str
    login: Login | None = None
    reach: Reach = attrs.field(factory=Reach)

    @contextmanager
    def opened(self) -> Iterator[Mapping[str, str]]:
        """
        Environment variables for a git command that goes there.

        Raises: AccessError for a host that must not be asked, InputError for a login that cannot be used there.
        """
        with given_to_git(self.login, self.url) as env:
            yield pinned(self.url, self.reach, self.login, env)


@attrs.frozen
class CheckedOut:
    """What a checkout wrote. lfs_pointers: paths of files whose content Git LFS keeps elsewhere."""

    files: int
    size_bytes: int
    lfs_pointers: tuple[str, ...] = ()

    def lfs_note(self) -> str | None:
        """A line for the log; None when there is nothing to say."""
        if not self.lfs_pointers:
            return None
        some = ", ".join(repr(path)[1:-1] for path in self.lfs_pointers[:3])
        more = f" and {len(self.lfs_pointers) - 3} more" if len(self.lfs_pointers) > 3 else ""
        return f"Git LFS pointers are left as they are, their contents are not fetched: {some}{more}"


@attrs.frozen
class CommitInfo:
    """A commit's own words. `committed_at` is UTC."""

    commit: str
    author: str
    title: str
    committed_at: datetime
    message: str = ""


@attrs.frozen
class Repository:
    """A git folder (a mirror, or a work tree's `.git`) to read commits from."""

    git_dir: Path

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        bounds: Bounds | None = None,
        data: bytes | None = None,
    ) -> bytes:
        """The output of a git command in this repository."""
        return git("--git-dir", str(self.git_dir), *words, env=env, bounds=bounds, data=data)

    def resolve(self, revision: str) -> str:
        """
        The full hash of a branch, tag or abbreviated hash.

        Raises: NotFoundError.
        """
        try:
            found = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except PlatformError as error:
            raise NotFoundError(f'no commit is called "{revision}"', remedy="name a branch, tag or hash") from error
        return found.decode().strip()

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        try:
            self.run("cat-file", "-e", f"{commit}^{{commit}}")
        except PlatformError:
            return False
        return True

    def info(self, commit: str) -> CommitInfo:
        """Author, title, time and message of a commit."""
        text = self.run("show", "-s", "--format=%H%x00%an <%ae>%x00%s%x00%ct%x00%B", commit).decode("utf-8", "replace")
        full, author, title, time, message = text.strip().split("\0", 4)
        return CommitInfo(full, author, title, datetime.fromtimestamp(min(int(time), _LATEST_S), UTC), message)

    def read_file(self, commit: str, path: str, *, limit_bytes: int) -> bytes | None:
        """A file's bytes at a commit; None when there is none. Raises: InputError when it is larger than the limit."""
        try:
            size = int(self.run("cat-file", "-s", f"{commit}:{path}"))
        except PlatformError:
            return None
        if size > limit_bytes:
            raise InputError(
                f"{size / 1e6:.0f} MB is too large", where=path, remedy=f"keep it below {limit_bytes / 1e6:.0f} MB"
            )
        try:
            return self.run("cat-file", "blob", f"{commit}:{path}")
        except PlatformError:  # a folder, or a submodule
            return None

    def check_out(self, commit: str, folder: Path, limits: Limits = LIMITS) -> CheckedOut:
        """
        Write the commit's files into an empty folder. It holds no `.git`; Git LFS's pointers stay pointers.

        Raises: InputError before anything is written when they are too many or too large.
        """
        sizes = self._sizes(commit, limits)
        folder.mkdir(parents=True, exist_ok=True)
        index = folder.parent / f".{folder.name}.index"
        try:
            words = ("--work-tree", str(folder), *_NO_LFS, "checkout", "--force", "--quiet", commit, "--", ".")
            self.run(*words, env={"GIT_INDEX_FILE": str(index)})
        finally:
            index.unlink(missing_ok=True)
        return CheckedOut(len(sizes), sum(sizes.values()), tuple(self._lfs_pointers(folder, sizes)))

    def _sizes(self, commit: str, limits: Limits) -> dict[str, int]:
        """Path → bytes of every file. Trees may hold each other ten times over, so the listing is bounded."""
        bounds = Bounds(output_bytes=max(limits.files, 100) * 300)
        try:
            listing = self.run("ls-tree", "-r", "-l", "-z", commit, bounds=bounds)
        except TooLarge as error:
            raise self._too_much(commit, f"more than {limits.files} files") from error
        rows = (entry.split(b"\t", 1) for entry in listing.split(b"\0") if entry)
        sizes = {os.fsdecode(path): int(about.split()[3].replace(b"-", b"0")) for about, path in rows}
        if len(sizes) > limits.files:
            raise self._too_much(commit, f"{len(sizes)} files, more than {limits.files}")
        if (total := sum(sizes.values())) > limits.checkout_bytes:
            raise self._too_much(commit, f"{total / 1e6:.0f} MB of files, more than {limits.checkout_bytes / 1e6:.0f}")
        return sizes

    def _too_much(self, commit: str, what: str) -> InputError:
        return InputError(f"it has {what}", where=f"commit {commit[:12]}", remedy="leave out what is no source")

    def _lfs_pointers(self, folder: Path, sizes: Mapping[str, int]) -> Iterator[str]:
        if not any(path == ".gitattributes" or path.endswith("/.gitattributes") for path in sizes):
            return
        for path, size in sizes.items():
            if len(_LFS_POINTER) < size <= _LARGEST_POINTER_BYTES and _begins(folder / path, _LFS_POINTER):
                yield path

    def files(self, commit: str) -> dict[str, str]:
        """Every file of a commit by its path → mode and hash of its content."""
        listing = self.run("ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape")
        rows = (entry.split("\t", 1) for entry in listing.split("\0") if entry)
        return {path: about for about, path in rows}

    def changed_files(self, before: str, commit: str) -> tuple[str, ...] | None:
        """Paths that differ between two commits; None when one of them is not here."""
        try:
            listing = self.run("diff", "--name-only", "--no-renames", "-z", before, commit, "--")
        except PlatformError:
            return None
        return tuple(path for path in listing.decode("utf-8", "surrogateescape").split("\0") if path)

    def branched_from(self, branch: str, commit: str) -> str | None:
        """Where a commit left a branch; None when the branch is not here or shares nothing with it."""
        try:
            found = self.run("merge-base", "--end-of-options", f"refs/heads/{branch}", commit)
        except PlatformError:
            return None
        return found.decode().strip() or None

    def is_only_of_forks(self, commit: str) -> bool:
        """Whether nothing but pull requests from forks brought the commit here."""
        if not (self.git_dir / FORKS).is_dir():
            return False
        own = ("refs/heads", "refs/tags")
        return bool(self._holding(commit, FORKS)) and not self._holding(commit, *own)

    def _holding(self, commit: str, *below: str) -> bytes:
        return self.run("for-each-ref", "--count=1", f"--contains={commit}", "--format=%(refname)", *below)


@attrs.frozen
class WorkTree:
    """A developer's own checkout."""

    root: Path

    @property
    def repository(self) -> Repository:
        """Its repository, wherever the git folder is."""
        found = git("-C", str(self.root), "rev-parse", "--absolute-git-dir").decode().strip()
        return Repository(Path(found))

    def branch(self) -> str:
        """The full name of the branch that is checked out, or HEAD."""
        try:
            return git("-C", str(self.root), "symbolic-ref", "--quiet", "HEAD").decode().strip()
        except PlatformError:
            return "HEAD"

    def changed_files(self) -> tuple[str, ...]:
        """Files that differ from HEAD or that git does not know and does not ignore."""
        listing = git("-C", str(self.root), "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
        return tuple(entry[3:] for entry in listing.decode("utf-8", "replace").split("\0") if entry)

    def snapshot(self) -> str:
        """
        The work tree as it is, as a commit on top of HEAD that no branch holds; HEAD itself when nothing changed.

        Raises: InputError in a repository without commits.
        """
        try:
            head = self.repository.resolve("HEAD")
        except NotFoundError as error:
            raise InputError("there is no commit yet", where=str(self.root), remedy="commit something first") from error
        if not self.changed_files():
            return head
        with tempfile.TemporaryDirectory() as folder:
            env = {"GIT_INDEX_FILE": str(Path(folder, "index")), **_SNAPSHOT_IDENTITY}
            git("-C", str(self.root), "read-tree", head, env=env)
            git("-C", str(self.root), "add", "--all", "--", ".", env=env)
            tree = git("-C", str(self.root), "write-tree", env=env).decode().strip()
            words = ("commit-tree", tree, "-p", head, "-m", "Uncommitted changes")
            return git("-C", str(self.root), *words, env=env).decode().strip()


# Times fixed, so that the same changes on the same commit are the same commit.
_SNAPSHOT_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "work tree"), ("EMAIL", "work-tree@localhost"), ("DATE", "946684800 +0000"))
}


def _begins(path: Path, words: bytes) -> bool:
    """Whether a file begins so; a link is not followed."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(len(words)) == words
    except OSError:
        return False


def mirror(remote: Remote | str, folder: Path, limits: Limits = LIMITS) -> Repository:
    """
    A bare mirror of a remote in `folder`, made or brought up to date; by one at a time, git's locks do not wait.

    Raises: PlatformError when git fails, InputError when the repository is larger than it may be.
    """
    return _fetch(remote, folder, limits, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def fetch_pull_request(
    remote: Remote | str, folder: Path, ref: str, *, fork: bool, limits: Limits = LIMITS
) -> Repository:
    """
    The mirror with one more ref: a pull request's head, kept apart from branches and tags.

    ref: as the forge calls it, such as refs/pull/7/head. fork: its commits are nobody's whom the project knows.
    Raises: PlatformError, also when the remote has no such ref; InputError when it is too large.
    """
    name = ref.removeprefix("refs/")
    return _fetch(remote, folder, limits, f"+{ref}:{FORKS if fork else PULL_REQUESTS}/{name}")


def _fetch(remote: Remote | str, folder: Path, limits: Limits, *refspecs: str) -> Repository:
    remote = _remote(remote)
    folder.parent.mkdir(parents=True, exist_ok=True)
    repository = Repository(folder)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "HEAD").exists():
            git("init", "--quiet", "--bare", "--template=", str(folder))
        with _room(repository, limits) as file_bytes, remote.opened() as env:
            words = ("fetch", "--quiet", "--prune", "--no-tags", "--end-of-options", remote.url, *refspecs)
            # All in one pack, whose size is bounded; loose objects would each have a bound of their own.
            packed = ("-c", "fetch.unpackLimit=1")
            repository.run(*packed, *words, env=env, bounds=Bounds(limits.fetch_s, file_bytes=file_bytes))
        _join_packs(repository, limits)
    return repository


@contextmanager
def _room(repository: Repository, limits: Limits) -> Iterator[int]:
    """How many bytes the next pack may have. What a fetch that failed has left behind is removed."""
    packs = repository.git_dir / "objects" / "pack"
    room = max(limits.mirror_bytes - sum(path.stat().st_size for path in packs.glob("pack-*.pack")), 1)
    try:
        yield room
    except PlatformError as error:
        left = list(packs.glob("tmp_*"))
        full = any(path.stat().st_size >= room // 512 * 512 for path in left)
        for path in left:
            path.unlink(missing_ok=True)
        if full:
            what = f"the repository is larger than {limits.mirror_bytes / 1e6:.0f} MB"
            raise InputError(what, remedy="keep large files out of git") from error
        raise


def _join_packs(repository: Repository, limits: Limits) -> None:
    packs = repository.git_dir / "objects" / "pack"
    if sum(1 for _ in packs.glob("pack-*.pack")) > limits.packs:
        repository.run("repack", "--geometric=2", "-d", "-q")


def _remote(remote: Remote | str) -> Remote:
    return Remote(remote) if isinstance(remote, str) else remote


@attrs.frozen
class RemoteHead:
    """Where a ref of a remote is. object: what it points at: of an annotated tag not the commit."""

    commit: str
    object: str


def ls_remote(remote: Remote | str, *, tags: bool = False) -> dict[str, str]:
    """Branch heads of a remote (and tags): full ref name → commit."""
    return {ref: head.commit for ref, head in list_remote(remote, tags=tags).items()}


def list_remote(remote: Remote | str, *, tags: bool = True) -> dict[str, RemoteHead]:
    """Branch heads of a remote (and tags) by full ref name."""
    kinds = ("--heads", "--tags") if tags else ("--heads",)
    listing = _ask(remote, *kinds)
    found = {ref: commit for commit, ref in (line.split("\t", 1) for line in listing.split("\n") if line)}
    # An annotated tag is an object of its own; the line after it says which commit it is of.
    plain = {ref: target for ref, target in found.items() if not ref.endswith("^{}")}
    return {ref: RemoteHead(found.get(f"{ref}^{{}}", target), target) for ref, target in plain.items()}


def default_branch(remote: Remote | str) -> str:
    """The branch that a remote's HEAD names, without `refs/heads/`; `main` when it names none."""
    match = re.search(r"^ref: refs/heads/(\S+)\s+HEAD$", _ask(remote, "--symref", end=("HEAD",)), re.MULTILINE)
    return match[1] if match else "main"


def _ask(remote: Remote | str, *options: str, end: tuple[str, ...] = ()) -> str:
    remote = _remote(remote)
    with remote.opened() as env:
        listing = git("ls-remote", *options, "--end-of-options", remote.url, *end, env=env)
    return listing.decode("utf-8", "replace")


def push(repository: Repository, remote: Remote | str, commit: str, branch: str) -> None:
    """
    Put a commit on a branch of the remote, never by force; the remote's own hooks run.

    Raises: PlatformError with git's reason when the remote refuses.
    """
    remote = _remote(remote)
    with remote.opened() as env:
        repository.run("push", "--quiet", "--end-of-options", remote.url, f"{commit}:refs/heads/{branch}", env=env)


def commit_file(
    repository: Repository, path: str, content: bytes, *, onto: str | None, message: str, author: str = "Penstock"
) -> str:
    """
    A commit that no branch holds, with one file changed or added. onto: the commit before; None for the first.

    Returns: its hash.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index")), **_identity(author)}
        if onto:
            repository.run("read-tree", onto, env=env)
        blob = repository.run("hash-object", "-w", "--stdin", data=content).decode().strip()
        repository.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=env)
        tree = repository.run("write-tree", env=env).decode().strip()
        parents = ("-p", onto) if onto else ()
        return repository.run("commit-tree", tree, *parents, env=env, data=message.encode()).decode().strip()


def _identity(name: str) -> dict[str, str]:
    return {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", name), ("EMAIL", "penstock@localhost"))
    }
