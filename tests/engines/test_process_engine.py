"""Every claim of the process engine's isolation, and what holds without isolation too."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import psutil
import pytest
from real_parts import Isolation

from penstock.engines import Exit, Job, open_engine
from penstock.engines.process import RUN_MARK, ProcessEngine, bubblewrap, host_env
from penstock.engines.process_groups import find_groups
from penstock.errors import Cancelled, PlatformError, SettingsError
from penstock.hidden import covering, credential_places, outermost, secrets_of
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import load_settings


@attrs.define
class Bench:
    """Runs shell scripts as jobs of one run."""

    engine: ProcessEngine
    workspace: Path
    run_id: str = attrs.field(factory=lambda: f"run-{uuid.uuid4().hex}")
    printed: bytes = b""

    def job(self, script: str, **options: object) -> Job:
        return Job(
            run_id=self.run_id,
            step="step",
            argv=("/bin/sh", "-c", textwrap.dedent(script)),
            workspace=self.workspace,
            **options,  # type: ignore[arg-type]
        )

    def run(self, script: str, token: CancelToken | None = None, **options: object) -> Exit:
        self.printed = b""

        def take(chunk: bytes) -> None:
            self.printed += chunk

        return self.engine.run(self.job(script, **options), take, token or CancelToken())

    def says(self, script: str, **options: object) -> str:
        self.run(script, **options)
        return self.printed.decode().strip()

    def left(self) -> list[psutil.Process]:
        """Processes of this run that are alive: by the run's mark, which a test's own scripts carry as argument too."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = self.run_id in " ".join(process.cmdline()) or self.run_id in str(process.environ())
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def make_bench(home: Path) -> Callable[[], Bench]:
    def make() -> Bench:
        workspace = home / "workspaces" / "run" / "step"
        workspace.mkdir(parents=True)
        engine = open_engine(load_settings({"PENSTOCK_HOME": str(home)}))
        assert isinstance(engine, ProcessEngine)
        return Bench(engine, workspace)

    return make


@pytest.fixture
def bench(isolation: Isolation, make_bench: Callable[[], Bench]) -> Bench:
    """With bubblewrap, then without."""
    return make_bench()


@pytest.fixture
def isolated(make_bench: Callable[[], Bench]) -> Iterator[Bench]:
    """Only with bubblewrap."""
    bubblewrap.cache_clear()
    if bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or the kernel does not let it work")
    yield make_bench()
    bubblewrap.cache_clear()


# What isolation promises


def test_isolation_is_said_plainly(bench: Bench, isolation: Isolation):
    """Who has none is told so, and what to install."""
    said = bench.engine.isolation()
    assert said.startswith("bubblewrap: read-only host" if isolation.bwrap else "none: commands run as your user")


@pytest.mark.parametrize("place", ["/etc", "/usr", "/usr/bin", "/", "/var", "/root", "/home", "/opt"])
def test_host_is_read_only(isolated: Bench, place: str):
    """Nothing outside of the workspace and /tmp can be written, as root neither."""
    ended = isolated.run(f"touch {place}/penstock-was-here")
    assert ended.code != 0
    assert not Path(place, "penstock-was-here").exists()


def test_read_only_host_cannot_be_remounted(isolated: Bench):
    """No capability is left that could undo it."""
    script = "mount -o remount,rw / ; umount /etc; mount -t tmpfs none /usr; touch /usr/x && echo written"
    assert "written" not in isolated.says(script)
    capabilities = re.findall(r"Cap(?:Eff|Prm|Bnd|Amb):\s+(\S+)", isolated.says("cat /proc/self/status"))
    assert set(capabilities) == {"0000000000000000"}


def test_workspace_is_written(bench: Bench):
    """What a step makes is there afterwards; it starts in the workspace."""
    assert bench.run('echo made > out && test "$(pwd -P)" = "$(cd "$WORKSPACE" && pwd -P)"').code == 0
    assert (bench.workspace / "out").read_text() == "made\n"


def test_work_dir_is_where_it_starts(bench: Bench):
    """A folder of the workspace."""
    (bench.workspace / "sub").mkdir()
    assert bench.says("basename $(pwd)", work_dir="sub") == "sub"


@pytest.mark.parametrize("parent", ["/tmp", "/var/tmp"])
def test_home_is_hidden(parent: str):
    """Tokens, keys, the database's socket, other runs' workspaces: none can be seen."""
    bubblewrap.cache_clear()
    if bubblewrap() is None:
        pytest.skip("bubblewrap is not installed, or the kernel does not let it work")
    home = Path(parent, f"penstock-test-{uuid.uuid4().hex[:8]}")
    workspace = home / "workspaces" / "run" / "step"
    workspace.mkdir(parents=True)
    try:
        (home / "token").write_text("secret")
        (home / "postgres").mkdir()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(home / "postgres" / "sock"))
        bench = Bench(ProcessEngine(load_settings({"PENSTOCK_HOME": str(home)})), workspace)
        assert (
            bench.run(f"test ! -e {home}/token && test ! -e {home}/postgres && test ! -e {home}/workspaces").code == 0
        )
        assert "secret" not in bench.says(f"cat {home}/token; cat /proc/1/root{home}/token; ls -R {home}")
        assert bench.run(f"echo x > {home}/planted").code in (0, 1, 2)
        assert not (home / "planted").exists()
        listener.close()
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


def test_read_only_folder_of_the_home_can_be_seen(isolated: Bench):
    """The scanners that lie there, and no more."""
    tools = isolated.engine.home / "tools"
    tools.mkdir()
    (tools / "scanner").write_text("here")
    (isolated.engine.home / "token").write_text("secret")
    assert isolated.says(f"cat {tools}/scanner; cat {tools}/../token", read_only=(tools,)).startswith("here")
    assert b"secret" not in isolated.printed
    assert isolated.run(f"touch {tools}/x", read_only=(tools,)).code != 0


def test_credentials_are_covered(tmp_path: Path):
    """Keys and tokens of the user who runs Penstock: folders are empty, files too."""
    for name in (".ssh/id_ed25519", ".aws/credentials", ".config/gh/hosts.yml", ".netrc", ".git-credentials", ".npmrc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret")
    places = credential_places(tmp_path)
    words = " ".join(covering(places))
    for folder in (".ssh", ".aws", ".config"):
        assert f"--tmpfs {tmp_path / folder}" in words
    for file in (".netrc", ".git-credentials", ".npmrc"):
        assert f"--ro-bind /dev/null {tmp_path / file}" in words
    assert ".kube" not in words


def test_credentials_cannot_be_read(isolated: Bench, monkeypatch: pytest.MonkeyPatch):
    """The same by trying, in a home folder that the host shows otherwise."""
    user_home = Path("/var/tmp", f"penstock-user-{uuid.uuid4().hex[:8]}")
    (user_home / ".ssh").mkdir(parents=True)
    try:
        (user_home / ".ssh" / "id_ed25519").write_text("secret")
        (user_home / ".netrc").write_text("secret")
        (user_home / "notes").write_text("readable")
        monkeypatch.setenv("HOME", str(user_home))
        said = isolated.says(f"cd {user_home} && cat .ssh/id_ed25519 .netrc notes; ls -a .ssh")
        assert "secret" not in said
        assert "readable" in said
    finally:
        subprocess.run(["rm", "-rf", str(user_home)], check=True)


def test_links_to_credentials_are_followed(tmp_path: Path):
    """What a link points at is covered, since that is where a step would find it; nothing is covered twice."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".ssh").symlink_to("elsewhere")
    (tmp_path / ".aws").symlink_to("elsewhere")
    (tmp_path / ".kube").symlink_to("nowhere")
    ours = [path for path in credential_places(tmp_path) if path.is_relative_to(tmp_path)]
    assert ours == [tmp_path / "elsewhere"]


def test_what_lies_in_a_covered_folder_is_not_covered_again():
    """A cover for it would be a new file in the empty folder."""
    paths = [Path("/a/b"), Path("/a"), Path("/ab"), Path("/a")]
    assert outermost(paths) == (Path("/a"), Path("/ab"))


@pytest.mark.parametrize("file", ["/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/security/opasswd"])
def test_secrets_of_the_host_cannot_be_read(isolated: Bench, file: str):
    """Password hashes belong to root, and so might the step."""
    if not Path(file).exists():
        pytest.skip("this machine has no such file")
    assert isolated.run(f"test -s {file} || cat {file}").code != 0


def test_new_files_of_root_alone_cannot_be_read(isolated: Bench):
    """What other users may not read under /etc is hidden from root's steps without being on a list."""
    if os.geteuid() != 0:
        pytest.skip("only root can read such files anyway")
    closed = [path for path in credential_places(Path("/nobody")) if path.is_file() and path.is_relative_to("/etc")]
    script = "; ".join(f"cat {path}" for path in closed)
    assert closed
    assert isolated.says(f"({script}) 2>/dev/null") == ""


def test_keys_that_settings_name_are_hidden(isolated: Bench):
    """The vault's key and token, a kubeconfig, the private key of TLS: wherever they lie."""
    folder = Path("/var/tmp", f"penstock-keys-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        for name in ("vault.key", "token", "kubeconfig", "tls.key", "tls.crt"):
            (folder / name).write_text(f"private {name}\n")
        settings = attrs.evolve(
            isolated.engine.settings,
            vault_key_file=folder / "vault.key",
            vault_token_file=folder / "token",
            kubeconfig=folder / "kubeconfig",
            tls_cert=folder / "tls.crt",
            tls_key=folder / "tls.key",
        )
        assert folder / "vault.key" in secrets_of(settings)
        bench = Bench(ProcessEngine(settings), isolated.workspace)
        assert bench.says(f"cat {folder}/* 2>/dev/null") == "private tls.crt"
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_there_is_no_network(isolated: Bench):
    """Not even the host's loopback, where its databases and Penstock itself listen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
        python3 -c "import socket; socket.create_connection(('127.0.0.1', {port}), 5)" 2>/dev/null && echo connected
        """
        assert "connected" not in isolated.says(script)
        assert "connected" in isolated.says(script, network=True)
    assert isolated.says("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo"


def test_abstract_sockets_of_the_host_are_out_of_reach(isolated: Bench):
    """They have no file that could be hidden."""
    with socket.socket(socket.AF_UNIX) as server:
        name = f"penstock-{uuid.uuid4().hex}"
        server.bind(f"\0{name}")
        server.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect('\\\\0{name}')"
        assert isolated.run(f'python3 -c "{code}"').code != 0


def test_tmp_is_private(isolated: Bench):
    """Neither is the host's seen nor does the host see what is left there; another job neither."""
    marker = Path("/tmp", f"penstock-{uuid.uuid4().hex}")
    marker.write_text("host")
    try:
        assert isolated.run(f"test ! -e {marker} && echo job > {marker} && echo x > $HOME/file").code == 0
        assert marker.read_text() == "host"
        assert isolated.run(f"test ! -e {marker} && test ! -e $HOME/file").code == 0
    finally:
        marker.unlink()


def test_processes_of_the_host_are_not_seen(isolated: Bench):
    """Their environments and arguments hold secrets; they cannot be signalled either."""
    assert isolated.run(f"kill -0 {os.getpid()}").code != 0
    pids = isolated.says("ls /proc | grep '^[0-9]'").split()
    assert 1 <= len(pids) < 10


def test_environment_is_filtered(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Of the host's variables only harmless ones arrive; the step's own all do."""
    for name in ("AWS_SECRET_ACCESS_KEY", "PENSTOCK_DATABASE_URL", "GITHUB_TOKEN", "HTTPS_PROXY", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, "secret")
    found = dict(line.split("=", 1) for line in bench.says("env", env={"MINE": "1"}).splitlines())
    assert "secret" not in found.values()
    assert found["MINE"] == "1"
    assert set(found) <= {
        *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONDONTWRITEBYTECODE", "HOME", "WORKSPACE", RUN_MARK),
        *("MINE", "PWD", "OLDPWD", "SHLVL", "_"),
    }


def test_proxies_arrive_with_the_network(monkeypatch: pytest.MonkeyPatch):
    """Package managers need them, and only then."""
    host = {"PATH": "/bin", "HTTPS_PROXY": "http://proxy", "TOKEN": "x"}
    assert "HTTPS_PROXY" not in host_env(host, network=False)
    assert host_env(host, network=True)["HTTPS_PROXY"] == "http://proxy"
    assert "TOKEN" not in host_env(host, network=True)


def test_tools_of_penstock_come_last_on_path():
    """A step's python3 is the machine's, not the one that Penstock runs on."""
    own = str(Path(sys.executable).parent)
    assert host_env({"PATH": f"{own}:/usr/bin::/bin"}, network=False)["PATH"] == f"/usr/bin:/bin:{own}"


# How a job ends


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_exit_code_is_the_commands(bench: Bench, script: str, code: int):
    """Or 128 + the signal."""
    ended = bench.run(script)
    assert (ended.state, ended.code) == ("exited", code)


def test_usage_is_measured(bench: Bench):
    """Seconds of processor time and bytes of memory."""
    if find_groups() is None and bubblewrap():
        pytest.skip("bubblewrap does not tell, and this machine lets us make no control groups")
    ended = bench.run("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert ended.cpu_s is not None
    assert 0 < ended.cpu_s <= ended.seconds * os.cpu_count() + 1  # type: ignore[operator]
    assert ended.memory_peak_bytes is not None
    assert 100_000 < ended.memory_peak_bytes < 1 << 30


def test_output_is_in_order_and_complete(bench: Bench):
    """Both streams, as they were written, a large last piece included."""
    script = """
    for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done
    head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end
    """
    said = bench.says(script)
    assert said.split("x")[0].split() == [f"{stream}{n}" for n in range(1, 6) for stream in ("out", "err")]
    assert said.count("x") == 3_000_000
    assert said.endswith("\nend")


def test_standard_input_is_empty(bench: Bench):
    """A command that asks a question does not wait for ever."""
    assert bench.run("cat; read x", timeout_s=30).state == "exited"


def test_time_limit_ends_it(bench: Bench):
    """The state says so; nothing of it is left."""
    ended = bench.run("sleep 300 & sleep 300", timeout_s=0.5)
    assert ended.state == "timed_out"
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_cancel_ends_a_tree_that_ignores_sigterm(bench: Bench):
    """Children, grandchildren and what left the group: gone within ten seconds."""
    token = CancelToken()
    script = f"""
    trap '' TERM
    python3 -c "import signal, os, time, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork() or os.setsid()
    os.fork()
    print('ready', flush=True); time.sleep(300)" {bench.run_id} &
    python3 -c "import time; time.sleep(300)" {bench.run_id}
    while true; do sleep 300; done
    """
    seen = threading.Event()
    result: list[Exit] = []

    def work() -> None:
        result.append(bench.engine.run(bench.job(script), lambda _chunk: seen.set(), token))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert seen.wait(30)
        assert bench.left()
    finally:
        token.cancel("enough")
        worker.join(10)
    assert not worker.is_alive()
    assert result[0].state == "cancelled"
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_commands_may_end_in_order_when_cancelled(bench: Bench):
    """SIGTERM comes first, with time to clean up."""
    token, started = CancelToken(), threading.Event()
    script = "trap 'echo cleaned > done; exit 1' TERM; echo started; while true; do sleep 0.1; done"
    worker = threading.Thread(target=lambda: bench.engine.run(bench.job(script), lambda _chunk: started.set(), token))
    worker.start()
    assert started.wait(30)
    token.cancel("enough")
    worker.join(20)
    assert (bench.workspace / "done").read_text() == "cleaned\n"


def test_cancelled_run_starts_nothing(bench: Bench):
    """Too late is not at all."""
    token = CancelToken()
    token.cancel("over")
    with pytest.raises(Cancelled, match="over"):
        bench.run("touch started", token)
    assert not (bench.workspace / "started").exists()


def test_background_daemon_is_gone_afterwards(bench: Bench):
    """One that detached itself from everything but the run's mark, and holds the output open."""
    script = f"""
    setsid sh -c 'setsid python3 -c "import time; time.sleep(300)" {bench.run_id} &' &
    sleep 0.3; echo over
    """
    ended = bench.run(script)
    assert (ended.state, ended.code) == ("exited", 0)
    assert b"over" in bench.printed
    assert wait_until(lambda: not bench.left(), limit_s=5)


def test_step_cannot_take_its_mark_off_by_configuration(bench: Bench):
    """The mark by which a run is reaped is not a variable that penstock.yaml sets."""
    mark = bench.says(f"echo ${RUN_MARK}", env={RUN_MARK: "another"})
    assert mark.startswith(f"{bench.run_id}/")
    assert mark.endswith("/step")


def test_private_folder_is_gone_afterwards(bench: Bench):
    """A job's /tmp leaves nothing beside the workspace."""
    bench.run("mkdir -p $HOME/a/b; touch $HOME/a/b/c")
    assert [path.name for path in bench.workspace.parent.iterdir()] == ["step"]


def test_engine_that_was_killed_leaves_nothing_behind(bench: Bench):
    """After kill -9 of Penstock itself the job is gone, or gone once the run is reaped."""
    code = f"""
    from pathlib import Path
    from penstock.engines import Job, open_engine
    from penstock.pipeline.cancel import CancelToken
    from penstock.settings import load_settings
    script = "setsid sleep 300 & python3 -c 'import time; time.sleep(300)' {bench.run_id} & echo up; wait"
    job = Job({bench.run_id!r}, "step", ("/bin/sh", "-c", script), Path({str(bench.workspace)!r}))
    engine = open_engine(load_settings({{"PENSTOCK_HOME": {str(bench.engine.home)!r}}}))
    engine.run(job, lambda chunk: print("up", flush=True), CancelToken())
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    assert bench.left()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    bench.engine.reap(bench.run_id)
    assert wait_until(lambda: not bench.left(), limit_s=10)


def test_reaping_one_run_leaves_the_others(make_bench: Callable[[], Bench], tmp_path: Path):
    """Also one whose identifier begins alike, other steps when one is named, and the same in another home."""
    bench = make_bench()
    run = bench.run_id
    mark = bench.says(f"echo ${RUN_MARK}")
    marks = {"a": mark, "b": mark.replace("/step", "/other"), "alike": mark.replace(run, f"{run}2")}
    sleepers = {
        name: subprocess.Popen(["sleep", "300"], env={**os.environ, RUN_MARK: text}) for name, text in marks.items()
    }
    try:
        assert ProcessEngine(load_settings({"PENSTOCK_HOME": str(tmp_path)})).reap(run) == 0
        assert bench.engine.reap(run, "step") == 1
        assert sleepers["a"].poll() is not None
        assert bench.engine.reap(run) == 1
        assert sleepers["b"].poll() is not None
        assert sleepers["alike"].poll() is None
        assert bench.engine.reap(run) == 0
    finally:
        for sleeper in sleepers.values():
            sleeper.kill()
            sleeper.wait()


def test_command_that_cannot_start_is_one_line(bench: Bench, isolation: Isolation):
    """A folder that is not there."""
    with pytest.raises(PlatformError, match="cannot start"):
        bench.run("true", work_dir="nowhere")


def test_unknown_engine_names_those_there_are(home: Path):
    """For a setting with a typo."""
    with pytest.raises(SettingsError, match='no engine is called "dokcer"; use process'):
        open_engine(load_settings({"PENSTOCK_HOME": str(home), "PENSTOCK_ENGINE": "dokcer"}))
