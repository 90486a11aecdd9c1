"""`penstock run`, `runs`, `logs` and `project`, as people call them."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cli_process import Penstock
from git_builder import PIPELINE, GitRepository

from penstock.processes import wait_until

In = Callable[[str], tuple[Penstock, GitRepository]]
STEP = "version: 1\nsteps:\n  - name: work\n    type: step.shell_exec\n    commands:\n      - %s\n"


def run_id(text: str) -> str:
    """The identifier that the last line tells."""
    return text.splitlines()[-1].split()[1]


def test_run_shows_steps_and_succeeds(in_repository: In):
    """Exit code 0; isolation is said; runs and logs know it afterwards; a part of its name is enough."""
    penstock, repository = in_repository(STEP % "echo printed")
    repository.write({"new.txt": "x"})
    done = penstock("run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"shop, commit {repository.git('rev-parse', 'HEAD')[:12]} with 1 uncommitted changes")
    assert "isolation: " in done.stdout
    assert "✔ succeeded  work" in done.stdout
    name = run_id(done.stdout)
    assert done.stdout.splitlines()[-1] == f"run {name} ✔ succeeded"
    listed = penstock("runs", "--project", "shop").stdout
    assert name[:8] in listed
    assert "✔ succeeded" in penstock("runs", name[:14]).stdout
    log = penstock("logs", name[:14], "work").stdout
    assert "  printed" in log
    unknown = penstock("logs", name, "wrok")
    assert unknown.returncode == 2
    assert 'has no step "wrok"' in unknown.stderr


def test_failed_run_shows_the_log(in_repository: In):
    """Exit code 1."""
    penstock, _ = in_repository(STEP % "echo the reason; exit 9")
    done = penstock("run")
    assert done.returncode == 1
    assert "── log of work" in done.stdout
    assert "  the reason" in done.stdout
    assert "exit code 9" in done.stdout


def test_run_that_takes_too_long(in_repository: In):
    """Exit code 4."""
    penstock, _ = in_repository(STEP % "sleep 300" + "    timeout: 1s\n")
    done = penstock("run")
    assert done.returncode == 4
    assert "took longer than its limit of 1 s" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_is_cancelled(in_repository: In, number: signal.Signals):
    """Exit code 130, no traceback, its processes gone, the run recorded as cancelled."""
    mark = f"penstock-sleeper-{os.getpid()}-{number}"
    penstock, _ = in_repository(STEP % f"\"python3 -c 'import time; time.sleep(300)' {mark}\"")

    def sleepers() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]

    process = penstock.process("run")
    assert wait_until(lambda: bool(sleepers()), limit_s=60)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert f"stopped by {number.name}" in out
    assert out.splitlines()[-1].endswith("■ cancelled")
    assert wait_until(lambda: not sleepers(), limit_s=5)


def test_chosen_step_and_commit(in_repository: In):
    """`--step` and `--commit`; a step or revision that is not there is exit code 2, and nothing is recorded."""
    penstock, repository = in_repository(STEP % "echo old")
    repository.commit(
        {
            "penstock.yaml": STEP % "echo new"
            + PIPELINE.partition("steps:\n")[2].replace("    t", "    needs: [work]\n    t")
        }
    )
    done = penstock("run", "--commit", "HEAD~1", "--verbose")
    assert done.returncode == 0
    assert "work │ old" in done.stdout
    for words, what in (
        (("--step", "wrok"), 'no step is called "wrok"; did you mean "work"?'),
        (("--commit", "nowhere"), 'no commit is called "nowhere"'),
        (("--step", "hello"), '"hello" needs work; run them first, or the whole pipeline'),
    ):
        refused = penstock("run", *words)
        assert refused.returncode == 2
        assert what in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert penstock("runs").stdout.count("shop") == 1


def test_what_cannot_be_run_is_one_line(penstock: Penstock, make_repository: Callable[..., GitRepository]):
    """Outside of a repository, in one without commits, without pipeline, with a bad one."""
    cases = [(penstock.cwd, "this is no git repository; run `git init` and commit")]
    cases.append((make_repository("empty").root, "there is no commit yet; commit something first"))
    cases.append((make_repository("none", {"a": "a"}).root, "has no penstock.yaml; write one with `penstock init`"))
    cases.append((make_repository("bad", {"penstock.yaml": "steps:\n\t- a\n"}).root, "penstock.yaml:2: a tab indents"))
    for folder, what in cases:
        done = Penstock(penstock.env, folder)("run")
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr
        assert done.stderr.count("\n") == 1


def test_unknown_run_is_one_line(penstock: Penstock):
    """For `runs` and `logs`."""
    for words in (("runs", "nope"), ("logs", "nope")):
        done = penstock(*words)
        assert done.returncode == 2
        assert done.stderr == 'penstock: no run begins with "nope"; list them with `penstock runs`\n'


def test_projects_are_connected_and_disconnected(penstock: Penstock, make_repository: Callable[..., GitRepository]):
    """By address; a bare repository on this machine gets its hook."""
    work = make_repository("Shop", {"penstock.yaml": PIPELINE})
    bare = penstock.cwd / "bare" / "Shop.git"
    work.git("clone", "--quiet", "--bare", str(work.root), str(bare))
    added = penstock("project", "add", str(bare))
    assert added.returncode == 0
    assert added.stdout.splitlines()[0] == f"shop: {bare}, default branch main"
    assert os.access(bare / "hooks" / "post-receive", os.X_OK)
    assert str(bare) in penstock("project", "list").stdout
    again = penstock("project", "add", str(work.root), "--name", "shop")
    assert again.returncode == 2
    assert "choose another name" in again.stderr
    assert penstock("project", "remove", "shop").returncode == 0
    gone = penstock("project", "remove", "shop")
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("env", "what"),
    [
        ({"PENSTOCK_HOST": "0.0.0.0"}, "PENSTOCK_HOST: refusing to listen"),
        ({"PENSTOCK_DATABASE_URL": "mysql://me:swordfish@h/d"}, "PENSTOCK_DATABASE_URL: this is no PostgreSQL"),
        ({"PENSTOCK_HOME": "/proc/nowhere"}, "PENSTOCK_HOME: cannot write"),
    ],
)
def test_wrong_setting_is_one_line(tmp_path: Path, env: dict[str, str], what: str):
    """Exit code 2, and no secret is repeated."""
    done = Penstock({"PENSTOCK_HOME": str(tmp_path), **env}, tmp_path)("runs")
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stderr.count("\n") == 1
    assert "swordfish" not in done.stderr


def test_database_that_is_away_is_one_line(tmp_path: Path):
    """Exit code 3: not the user's work."""
    env = {"PENSTOCK_HOME": str(tmp_path), "PENSTOCK_DATABASE_URL": "postgresql://me:swordfish@127.0.0.1:1/d"}
    done = Penstock(env, tmp_path)("runs")
    assert done.returncode == 3
    assert done.stderr.startswith("penstock: the database does not answer: ")
    assert done.stderr.count("\n") == 1
    assert "swordfish" not in done.stderr


def test_embedded_database_killed_in_a_run_is_one_line(home: Path, make_repository: Callable[..., GitRepository]):
    """Exit code 3, nothing left behind; the next run starts it anew."""
    go = home / "go"
    repository = make_repository("shop", {"penstock.yaml": STEP % "sleep 2"})
    penstock = Penstock({"PENSTOCK_HOME": str(home / "h")}, repository.root)
    process = penstock.process("run")
    assert process.stdout is not None
    assert "shop, commit" in process.stdout.readline()
    assert "▶ running" in process.stdout.readline()
    server = psutil.Process(int((home / "h" / "postgres" / "postmaster.pid").read_text().splitlines()[0]))
    server.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.startswith("penstock: the database does not answer: ")
    assert err.count("\n") == 1
    assert penstock("run").returncode == 0
    assert wait_until(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if str(home) in str(p.info["cmdline"])], limit_s=10
    )
    assert not go.exists()


def test_git_that_is_missing_is_one_line(in_repository: In, tmp_path: Path):
    """It says what to install."""
    penstock, _ = in_repository(PIPELINE)
    (tmp_path / "bin").mkdir()
    for command in ("sh", "python3", "env"):
        (tmp_path / "bin" / command).symlink_to(shutil.which(command) or "/bin/sh")
    done = Penstock({**penstock.env, "PATH": str(tmp_path / "bin")}, penstock.cwd)("run")
    assert done.returncode == 2
    assert done.stderr == "penstock: the git command was not found; install git and put it on PATH\n"
