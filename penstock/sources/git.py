"""The git command: mirrors, heads, files at a commit, checkouts."""

import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from penstock.errors import InputError, NotFoundError, PlatformError

TIMEOUT_S = 300.0
_LATEST_S = 253_402_300_799  # the last second of the year 9999: a commit may claim any time, datetime ends there
FORKS, PULL_REQUESTS = "refs/penstock/forks", "refs/penstock/pull-requests"  # in mirrors
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PROTOCOLS = "https:http:ssh:file"
_GUARDS = (
    *("-c", "core.hooksPath=/dev/null"),
    *(
        "-c",
        "core.fsmonitor=false",
        "-c",
        "submodule.recurse=false",
        "-c",
        "gc.auto=0",
        "-c",
        "maintenance.auto=false",
        "-c",
        "advice.detachedHead=false",
    ),
    *("-c", "safe.directory=*"),
)


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

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> bytes:
        """The output of a git command in this repository."""
        return git("--git-dir", str(self.git_dir), *words, env=env)

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

    def check_out(self, commit: str, folder: Path) -> None:
        """Write the commit's files into an empty folder. It holds no `.git`."""
        folder.mkdir(parents=True, exist_ok=True)
        index = folder.parent / f".{folder.name}.index"
        try:
            words = ("--work-tree", str(folder), "checkout", "--force", "--quiet", commit, "--", ".")
            self.run(*words, env={"GIT_INDEX_FILE": str(index)})
        finally:
            index.unlink(missing_ok=True)

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


def mirror(url: str, folder: Path) -> Repository:
    """A bare mirror of `url` in `folder`, made or brought up to date; by one at a time, git's locks do not wait."""
    return _fetch(url, folder, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def fetch_pull_request(url: str, folder: Path, ref: str, *, fork: bool) -> Repository:
    """
    The mirror with one more ref: a pull request's head, kept apart from branches and tags.

    ref: as the forge calls it, such as refs/pull/7/head. fork: its commits are nobody's whom the project knows.
    Raises: PlatformError, also when the remote has no such ref.
    """
    name = ref.removeprefix("refs/")
    return _fetch(url, folder, f"+{ref}:{FORKS if fork else PULL_REQUESTS}/{name}")


def _fetch(url: str, folder: Path, *refspecs: str) -> Repository:
    folder.parent.mkdir(parents=True, exist_ok=True)
    repository = Repository(folder)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "HEAD").exists():
            git("init", "--quiet", "--bare", str(folder))
        repository.run("fetch", "--quiet", "--prune", "--no-tags", "--end-of-options", url, *refspecs)
    return repository


@attrs.frozen
class RemoteHead:
    """Where a ref of a remote is. object: what it points at: of an annotated tag not the commit."""

    commit: str
    object: str


def ls_remote(url: str, *, tags: bool = False) -> dict[str, str]:
    """Branch heads of a remote (and tags): full ref name → commit."""
    return {ref: head.commit for ref, head in list_remote(url, tags=tags).items()}


def list_remote(url: str, *, tags: bool = True) -> dict[str, RemoteHead]:
    """Branch heads of a remote (and tags) by full ref name."""
    kinds = ("--heads", "--tags") if tags else ("--heads",)
    listing = git("ls-remote", *kinds, "--end-of-options", url).decode("utf-8", "replace")
    found = {ref: commit for commit, ref in (line.split("\t") for line in listing.splitlines())}
    # An annotated tag is an object of its own; the line after it says which commit it is of.
    plain = {ref: target for ref, target in found.items() if not ref.endswith("^{}")}
    return {ref: RemoteHead(found.get(f"{ref}^{{}}", target), target) for ref, target in plain.items()}


def default_branch(url: str) -> str:
    """The branch that a remote's HEAD names, without `refs/heads/`; `main` when it names none."""
    listing = git("ls-remote", "--symref", "--end-of-options", url, "HEAD").decode()
    match = re.search(r"^ref: refs/heads/(\S+)\s+HEAD$", listing, re.MULTILINE)
    return match[1] if match else "main"


def git(*words: str, env: Mapping[str, str] | None = None, guarded: bool = True) -> bytes:
    """
    Run git within a time limit.

    guarded: hooks off and few protocols; False only for a push to a repository of one's own, whose hook must run.

    Raises: PlatformError with git's own last line.
    """
    command: Sequence[str] = ("git", *(_GUARDS if guarded else ()), *words)
    own = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/true", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    own["GIT_ALLOW_PROTOCOL"] = _PROTOCOLS  # stronger than protocol.*.allow, which a repository's own config can set
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**_without_git(os.environ), **own, **(env or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"git {_verb(words)} took longer than {TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise PlatformError("the git command was not found", remedy="install git and put it on PATH") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        told = [line for line in lines if line.startswith(("fatal:", "error:"))]
        raise PlatformError(f"git {_verb(words)} failed: {(told or lines)[-1]}")
    return done.stdout


def _without_git(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would point git at another repository, as inside a hook."""
    keep = {"GIT_SSL_CAINFO", "GIT_SSH", "GIT_SSH_COMMAND"}
    return {name: value for name, value in environment.items() if not name.startswith("GIT_") or name in keep}


def _verb(words: Sequence[str]) -> str:
    skip = 0
    for word in words:
        if skip:
            skip -= 1
        elif word in ("--git-dir", "--work-tree", "-C"):
            skip = 1
        else:
            return word
    return ""
