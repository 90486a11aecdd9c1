"""The embedded PostgreSQL: shared by its users, gone with the last one, nothing lost to kill -9."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import psycopg
import pytest

from penstock.errors import ConflictError, PlatformError
from penstock.processes import wait_until
from penstock.settings import load_settings
from penstock.state.database import hosted_database
from penstock.state.embedded import EmbeddedPostgres

USER = """
    import sys
    from pathlib import Path
    from penstock.state.embedded import EmbeddedPostgres
    with EmbeddedPostgres(Path({home!r})).hosted():
        print("up", flush=True)
        sys.stdin.read()
"""


def another_user(home: Path) -> "subprocess.Popen[bytes]":
    """Another process that uses the server until its standard input is closed."""
    code = textwrap.dedent(USER).format(home=str(home))
    user = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert user.stdout is not None
    assert user.stdout.readline() == b"up\n"
    return user


def server_pid(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def test_last_user_stops_it(home: Path):
    """Whoever started it may leave first; whoever leaves last leaves no process behind."""
    server = EmbeddedPostgres(home)
    first = another_user(home)
    pid = server_pid(home)
    with server.hosted():
        assert server_pid(home) == pid
        first.communicate()
        assert first.returncode == 0
        assert server.answers()
        with psycopg.connect(server.conninfo()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not server.answers()
    assert wait_until(lambda: not psutil.pid_exists(pid), limit_s=10)


def test_what_was_committed_survives_kill(home: Path):
    """kill -9 of the server, with somebody in the middle of a transaction: the next start has what was committed."""
    server = EmbeddedPostgres(home)
    with server.hosted():
        with psycopg.connect(server.conninfo()) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (1)")
        unfinished = psycopg.connect(server.conninfo())
        unfinished.execute("INSERT INTO kept VALUES (2)")
        os.kill(server_pid(home), signal.SIGKILL)
        assert wait_until(lambda: not server.answers(), limit_s=10)
        unfinished.close()
    with server.hosted(), psycopg.connect(server.conninfo()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_killed_user_does_not_keep_others_out(home: Path):
    """After kill -9 of the process that started it the server goes on; the next user uses it and stops it."""
    server = EmbeddedPostgres(home)
    first = another_user(home)
    pid = server_pid(home)
    first.kill()
    first.communicate()
    with server.hosted():
        assert server_pid(home) == pid
        with pytest.raises(ConflictError, match="a penstock command is at work here"):
            server.stop_leftover()
    assert not server.answers()
    server.stop_leftover()


def test_half_made_data_folder_is_made_anew(home: Path):
    """Killed in the middle of initdb."""
    (home / "postgres" / "base").mkdir(parents=True)
    (home / "postgres" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(home).hosted() as server:
        assert server.answers()


def test_left_over_pid_of_another_process_is_not_signalled(home: Path):
    """A process number is given out again; whoever has it now is not the server."""
    (home / "postgres").mkdir()
    sleeper = subprocess.Popen(["sleep", "300"])
    try:
        (home / "postgres" / "postmaster.pid").write_text(f"{sleeper.pid}\n")
        EmbeddedPostgres(home).stop()
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_it_listens_on_no_port(postgres: EmbeddedPostgres):
    """Only on a socket in a folder that nobody else can enter."""
    server = psutil.Process(server_pid(postgres.home))
    assert [c for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert postgres.data.stat().st_mode & 0o077 == 0
    assert (postgres.socket_dir / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0


def test_long_home_has_its_socket_elsewhere(home: Path):
    """A unix socket's path is short; the folder is private and differs from home to home."""
    long = home / ("x" * 100)
    long.mkdir(mode=0o711)
    server = EmbeddedPostgres(long)
    assert len(str(server.socket_dir / ".s.PGSQL.5432")) <= 107
    assert server.socket_dir != EmbeddedPostgres(home / ("y" * 100)).socket_dir
    with server.hosted():
        assert server.answers()
        assert server.socket_dir.stat().st_mode & 0o077 == 0
    server.socket_dir.rmdir()


def test_socket_folder_of_somebody_else_is_refused(home: Path):
    """Whoever made the folder beforehand could sit between Penstock and its database."""
    long = home / ("x" * 100)
    long.mkdir(mode=0o711)
    server = EmbeddedPostgres(long)
    server.socket_dir.symlink_to(home)
    try:
        with pytest.raises(PlatformError, match="somebody else made this"), server.hosted():
            pass
    finally:
        server.socket_dir.unlink()


def test_server_that_cannot_start_is_one_line(home: Path):
    """It tells where the reason is."""
    settings = load_settings({"PENSTOCK_HOME": str(home)})
    with hosted_database(settings):
        pass
    (home / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(PlatformError, match=r"did not start; see .*postgres\.log"), hosted_database(settings):
        pass


def test_home_and_its_files_are_for_their_owner(home: Path):
    """Others pass through the home, as the database's own user must, and cannot list it."""
    settings = load_settings({"PENSTOCK_HOME": str(home / "made")})
    with hosted_database(settings):
        assert settings.home.stat().st_mode & 0o777 == 0o711
        assert (settings.home / "postgres").stat().st_mode & 0o077 == 0
        assert (settings.home / ".gitignore").read_text() == "*\n"
