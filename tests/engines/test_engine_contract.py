"""What every engine promises: Docker, Podman and processes pass the same tests."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from engine_contract import MIB, Contract, ends_soon, listening_on_this_machine, long_sleep, own_addresses, runs

from penstock.engines import Probe
from penstock.errors import Cancelled, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until

pytestmark = pytest.mark.xdist_group("docker")
ODD = 'two words|*|$HOME|"quoted"|it\'s|back\\slash|ünïcode ✓|line\nbreak|-x|%s'


# How it ends


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_code_is_the_commands(contract: Contract, code: int):
    """Nothing between the command and the record changes it."""
    ended = contract.run(f"exit {code}")
    assert (ended.state, ended.code) == ("exited", code)
    assert ended.seconds > 0


def test_death_by_a_signal_is_128_and_more(contract: Contract):
    """As every shell has it; and no limit was the reason."""
    ended = contract.run("sh -c 'kill -9 $$'; exit $?")
    assert (ended.state, ended.code) == ("exited", 137)


def test_child_that_outlives_the_command_is_ended(contract: Contract):
    """The step is over when its command is."""
    seconds = long_sleep()
    ended = contract.run(f"busybox sleep {seconds} & exit 4")
    assert (ended.state, ended.code) == ("exited", 4)
    assert ends_soon(seconds)


def test_time_limit_has_its_own_state(contract: Contract):
    """And a process that ignores the request to end is killed, with its children."""
    seconds = long_sleep()
    ended = contract.run(f"trap '' TERM; busybox sleep {seconds} & busybox sleep {seconds}; exit 0", timeout_s=1)
    assert ended.state == "timed_out"
    assert ends_soon(seconds)


def test_out_of_memory_has_its_own_state(contract: Contract):
    """A kill for memory is neither a failed test nor a time-out."""
    ended = contract.run("busybox tail /dev/zero", memory_bytes=64 * MIB, timeout_s=120)
    assert ended.state == "out_of_memory"
    assert ended.code != 0


def test_memory_within_the_limit_is_left_alone(contract: Contract):
    """The limit is no smaller than it says."""
    ended = contract.run("busybox head -c 20000000 /dev/zero | busybox tail | busybox wc -c", memory_bytes=128 * MIB)
    assert (ended.state, ended.code) == ("exited", 0)


def test_processes_are_limited(contract: Contract):
    """A fork bomb harms its own step alone."""
    seconds = long_sleep()
    script = f"i=0; while [ $i -lt 120 ]; do busybox sleep {seconds} & i=$((i+1)); done; busybox sleep 3; exit 0"
    ended = contract.run(script, pids=32)
    assert ended.code != 0
    assert ends_soon(seconds)


# What it prints


def test_output_comes_in_its_true_order(contract: Contract):
    """stdout and stderr are one stream: a message stands after the line that caused it."""
    said = contract.says("i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done")
    assert said.splitlines() == [f"{stream} {number}" for number in range(500) for stream in ("out", "err")]


def test_output_comes_while_the_command_runs(contract: Contract):
    """Live: what it prints is seen before it ends."""
    ended = contract.cancelled("echo begun; busybox sleep 600")
    assert ended.state == "cancelled"
    assert contract.printed.startswith(b"begun\n")


@pytest.mark.parametrize("megabytes", [0, 8])
def test_end_of_the_output_is_never_lost(contract: Contract, megabytes: int):
    """Also when the command ends with the last byte."""
    contract.run(f"busybox head -c {megabytes * MIB} /dev/zero; printf 'the last words'")
    assert len(contract.printed) == megabytes * MIB + len("the last words")
    assert contract.printed.endswith(b"the last words")


def test_bytes_arrive_as_they_are(contract: Contract):
    """No text is made of them, no line end changed."""
    data = bytes(range(256)) * 300 + b"\r\n\r\x00"
    (contract.workspace / "data").write_bytes(data)
    contract.run("cat data")
    assert contract.printed == data


def test_200_mb_of_output_take_no_memory(contract: Contract):
    """Whoever runs a chatty step stays small; measured in a process of its own."""
    program = """
        import resource, sys
        from pathlib import Path
        from penstock.engines import Job, open_engine
        from penstock.pipeline.cancel import CancelToken
        from penstock.settings import load_settings
        seen = 0
        def take(chunk):
            global seen
            seen += len(chunk)
        engine = open_engine(load_settings())
        def run(size):
            argv = ("/bin/sh", "-c", f"busybox head -c {size} /dev/zero")
            image = sys.argv[3] or None
            return engine.run(Job(sys.argv[1], "big", argv, Path(sys.argv[2]), image=image), take, CancelToken())
        run(1000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ended = run(200_000_000)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(ended.code, seen, grown // 1024)
    """
    words = [contract.run_id, str(contract.workspace), contract.image or ""]
    code, seen, grown_mib = _python(contract, program, *words).stdout.split()
    assert (code, seen) == ("0", "200001000")
    assert int(grown_mib) < 50


def test_nobody_is_at_the_keyboard(contract: Contract):
    """A command that asks a question gets an end of file, and does not wait for ever."""
    ended = contract.run("cat; if read -r answer; then exit 9; fi; exit 0", timeout_s=60)
    assert (ended.state, ended.code) == ("exited", 0)


# What it is given


def test_arguments_arrive_as_they_are(contract: Contract):
    """No shell of ours reads them."""
    contract.run(argv=("/bin/sh", "-c", 'printf "%s|" "$@"', "sh", *ODD.split("|"), ""))
    assert contract.printed.decode() == f"{ODD}||"


def test_environment_arrives_as_it_is(contract: Contract):
    """Quotes, dollars and line breaks too; and nothing of Penstock's own environment."""
    said = contract.says('printf %s "$ODD"; env', env={"ODD": ODD})
    assert said.startswith(ODD)
    assert "PENSTOCK_" not in said.removeprefix(ODD).replace("PENSTOCK_RUN_MARK", "")


@pytest.mark.parametrize("work_dir", ["sub/folder", "/workspace/sub/folder"])
def test_starts_in_its_folder(contract: Contract, work_dir: str):
    """Written with /workspace or without."""
    (contract.workspace / "sub" / "folder").mkdir(parents=True)
    (contract.workspace / "sub" / "folder" / "here").write_text("found")
    assert contract.says("cat here", work_dir=work_dir) == "found"


def test_files_belong_to_penstocks_user(contract: Contract):
    """What a step makes can be read, packed and removed afterwards; also in folders that it made."""
    assert contract.run("mkdir made; echo text >made/file; : >empty").code == 0
    for path in (contract.workspace / "made", contract.workspace / "made" / "file", contract.workspace / "empty"):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    assert (contract.workspace / "made" / "file").read_text() == "text\n"


def test_read_only_folder_is_seen_at_its_own_path(contract: Contract, home: Path):
    """A tool that Penstock keeps in its home is there for the steps that use it."""
    folder = home / "tools" / "one"
    folder.mkdir(parents=True)
    (folder / "tool").write_text("the tool")
    assert contract.says(f"cat {folder}/tool", read_only=(folder,)) == "the tool"
    if contract.isolated:
        assert contract.run(f"echo broken >{folder}/tool", read_only=(folder,)).code != 0
        assert (folder / "tool").read_text() == "the tool"


def test_secrets_are_files_in_memory(contract: Contract):
    """Exactly their bytes, for their owner alone, and not in the environment."""
    values = {"TOKEN": b"s3cr3t-\x00\xff\n", "key.pem": b"-----BEGIN-----\nx\n"}
    said = contract.says("cd /run/secrets && busybox stat -c '%a %n' * && env", secrets=values)
    assert [line for line in said.splitlines() if "=" not in line] == ["400 TOKEN", "400 key.pem"]
    assert "s3cr3t" not in said
    for name, value in values.items():
        contract.run(f"cat /run/secrets/{name}", secrets=values)
        assert contract.printed == value


def test_secrets_are_nowhere_on_disk(contract: Contract, home: Path):
    """Neither while the step runs nor afterwards is the value in Penstock's home or in the process table."""
    value = f"value{long_sleep()}"
    command = f"cp /run/secrets/TOKEN /dev/null; busybox sh -c 'ps w' ; env; grep -rl {value[:5]} /workspace"
    said = contract.says(command, secrets={"TOKEN": value.encode()})
    assert value not in said
    found = subprocess.run(["grep", "-rl", value, str(home)], check=False, capture_output=True, text=True)
    assert found.stdout == ""


# How it is kept apart


def test_isolation_is_one_honest_sentence(contract: Contract):
    """For `penstock check` and the log of a run."""
    said = contract.engine.isolation()
    assert said
    assert "\n" not in said


@pytest.mark.parametrize("place", ["/", "/etc", "/usr", "/bin"])
def test_root_is_read_only(isolated: Contract, place: str):
    """Only the workspace and /tmp can be written."""
    assert isolated.run(f"echo x >{place}/penstock-was-here").code != 0
    assert not Path(place, "penstock-was-here").exists()


def test_tmp_is_private(isolated: Contract, tmp_path: Path):
    """Empty at the start, writable, its programs can be run, and gone afterwards."""
    script = "printf '#!/bin/sh\\necho ran' >/tmp/left && chmod +x /tmp/left && /tmp/left"
    # Penstock itself may lie below /tmp: the folder that holds its own environment is there then.
    own = Path(sys.prefix).parts[2] if Path(sys.prefix).is_relative_to("/tmp") else "home"
    assert isolated.says(f"busybox ls /tmp | busybox grep -v -e home -e {own}; {script}") == "ran\n"
    assert isolated.run("test -e /tmp/left").code == 1
    assert not Path("/tmp/left").exists()


def test_no_capability_is_left(isolated: Contract):
    """Nothing that root could do is possible inside, and no set-uid program changes that."""
    said = isolated.says("cat /proc/self/status")
    lines = dict(line.split(":\t") for line in said.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert lines["CapEff"] == lines["CapBnd"] == lines["CapPrm"] == "0" * 16
    assert lines["NoNewPrivs"] == "1"


def test_no_network_unless_asked(isolated: Contract):
    """Neither this machine nor anything beyond it."""
    with listening_on_this_machine() as port:
        tries = "; ".join(f"busybox nc -w 2 {address} {port} </dev/null" for address in own_addresses())
        assert "answers" not in isolated.says(f"({tries}) 2>/dev/null; echo done")
        assert isolated.printed == b"done\n"


def test_network_when_asked(contract: Contract):
    """Then this machine can be reached: by its loopback from processes, by the gateway from containers."""
    with listening_on_this_machine() as port:
        gateway = "127.0.0.1" if contract.image is None else "$(busybox ip route | busybox awk '/default/{print $3}')"
        assert "this machine answers" in contract.says(f"busybox nc -w 20 {gateway} {port} </dev/null", network=True)


# How it is stopped


def test_cancel_ends_everything(contract: Contract):
    """Grandchildren too, also those that ignore the request; and the state says so."""
    seconds = long_sleep()
    script = f"""
        trap '' TERM
        (trap '' TERM; busybox sh -c 'trap "" TERM; busybox sleep {seconds}; busybox sleep {seconds}') &
        echo begun
        busybox sleep {seconds}; busybox sleep {seconds}
    """
    assert contract.cancelled(script).state == "cancelled"
    assert ends_soon(seconds)


def test_cancelled_before_it_starts(contract: Contract):
    """Nothing is started for a run that is over."""
    token = CancelToken()
    token.cancel("too late")
    with pytest.raises(Cancelled, match="too late"):
        contract.run("echo begun", token)
    assert contract.printed == b""


def test_killed_penstock_leaves_what_reap_finds(contract: Contract):
    """`kill -9` of the process that runs a job: another one ends what is left of it."""
    seconds = long_sleep()
    program = """
        import sys
        from pathlib import Path
        from penstock.engines import Job, open_engine
        from penstock.pipeline.cancel import CancelToken
        from penstock.settings import load_settings
        argv = ("/bin/sh", "-c", f"busybox sleep {sys.argv[2]}")
        job = Job(sys.argv[1], "step", argv, Path(sys.argv[3]), image=sys.argv[4] or None)
        open_engine(load_settings()).run(job, print, CancelToken())
    """
    words = [contract.run_id, str(seconds), str(contract.workspace), contract.image or ""]
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), *words], env=_env(contract)) as process:
        assert wait_until(lambda: runs(f"busybox sleep {seconds}"), limit_s=60)
        process.kill()
    contract.engine.reap(contract.run_id, "another step")
    contract.engine.reap("another run")
    if contract.image is not None:
        assert runs(f"busybox sleep {seconds}")
        assert contract.engine.reap(contract.run_id, "step") == 1
    contract.engine.reap(contract.run_id)
    assert ends_soon(seconds)
    assert contract.engine.reap(contract.run_id) == 0


# Services


def test_services_are_reached_by_name(contract: Contract):
    """Two of them, each ready before the job starts, with their own environment."""
    first = contract.sidecar(
        "db",
        'busybox sleep 1; while true; do echo "$GREETING" | busybox nc -l -p 25432; done',
        env={"GREETING": "this is db"},
        ready=Probe(port=25432, interval_s=0.2),
    )
    second = contract.sidecar(
        "web",
        "mkdir -p /tmp/w && echo page >/tmp/w/index && exec busybox httpd -f -p 28080 -h /tmp/w",
        ready=Probe(port=28080, http="/index", interval_s=0.2),
    )
    script = "until busybox nc -w 20 db 25432 </dev/null 2>/dev/null; do sleep 0.1; done; busybox wget -q -O - http://web:28080/index"
    assert contract.says(script, services=(first, second)).split("\n")[:2] == ["this is db", "page"]


def test_service_is_asked_by_a_command(contract: Contract):
    """Ready is what the command says."""
    script = "busybox sleep 1; : >/tmp/ready; while true; do echo there | busybox nc -l -p 25433; done"
    probe = Probe(command=("/bin/sh", "-c", "test -e /tmp/ready"), interval_s=0.2)
    service = contract.sidecar("db", script, ready=probe)
    said = contract.says(
        "busybox sleep 1; until busybox nc -w 20 db 25433 </dev/null 2>/dev/null; do sleep 0.1; done",
        services=(service,),
    )
    assert said == "there\n"


def test_services_end_with_the_job(contract: Contract):
    """Whether it passes or fails."""
    seconds = long_sleep()
    service = contract.sidecar("db", f"trap '' TERM; busybox sleep {seconds}; busybox sleep {seconds}")
    for code in (0, 1):
        assert contract.run(f"exit {code}", services=(service,)).code == code
        assert ends_soon(seconds)


def test_services_end_when_the_job_is_cancelled(contract: Contract):
    """Stop means stopped, for them too."""
    seconds = long_sleep()
    service = contract.sidecar("db", f"trap '' TERM; busybox sleep {seconds}; busybox sleep {seconds}")
    assert contract.cancelled("echo begun; busybox sleep 600", services=(service,)).state == "cancelled"
    assert ends_soon(seconds)


def test_service_that_dies_says_its_last_words(contract: Contract):
    """The step fails with the reason, and its command never starts."""
    service = contract.sidecar("db", "echo cannot open the data; exit 5", ready=Probe(port=25434, limit_s=60))
    with pytest.raises(StepFailure, match=r"db.*cannot open the data"):
        contract.run("echo begun", services=(service,))
    assert contract.printed == b""


def test_service_that_is_never_ready_is_a_failure(contract: Contract):
    """With what it printed; and it does not stay."""
    seconds = long_sleep()
    service = contract.sidecar(
        "db", f"echo still thinking; busybox sleep {seconds}", ready=Probe(port=25435, limit_s=2)
    )
    with pytest.raises(StepFailure, match=r"db.*(still thinking|25435)"):
        contract.run("echo begun", services=(service,))
    assert ends_soon(seconds)


def test_services_open_no_door(isolated: Contract):
    """A job without network that has services reaches them, and neither this machine nor anything beyond."""
    service = isolated.sidecar("db", "while true; do echo db | busybox nc -l -p 25436; done", ready=Probe(port=25436))
    with listening_on_this_machine() as port:
        found = "$(busybox ip route | busybox awk '/default/{print $3}')"
        tries = "; ".join(f"busybox nc -w 2 {one} {port} </dev/null" for one in [*own_addresses(), found])
        said = isolated.says(
            f"until busybox nc -w 20 db 25436 </dev/null 2>/dev/null; do sleep 0.1; done; ({tries}) 2>/dev/null; true",
            services=(service,),
        )
    assert said == "db\n"


# Images


@pytest.mark.parametrize("image", ["localhost:1/no/such:image", "No Name!"])
def test_unusable_image_is_named(containers: Contract, image: str):
    """One line with the image in it."""
    containers.image = image
    with pytest.raises(Exception, match=image) as caught:
        containers.run("true")
    assert "\n" not in str(caught.value)


def test_image_is_needed_for_containers(containers: Contract):
    """Which one cannot be guessed."""
    containers.image = None
    with pytest.raises(StepFailure, match=r"names no image.*add `image:`"):
        containers.run("true")


def test_image_stands_for_a_digest(contract: Contract):
    """Where images are used."""
    found = contract.engine.image_digest(contract.image or "busybox")
    assert found is None if contract.image is None else str(found).startswith("sha256:")


def test_command_that_the_image_lacks_is_127(containers: Contract):
    """As every shell has it, with the command's name."""
    ended = containers.run(argv=("/no/such/command", "x"))
    assert (ended.state, ended.code) == ("exited", 127)
    assert b"/no/such/command" in containers.printed


def _python(contract: Contract, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-c", textwrap.dedent(program), *words]
    return subprocess.run(line, check=True, text=True, stdout=subprocess.PIPE, env=_env(contract), timeout=170)


def _env(contract: Contract) -> dict[str, str]:
    settings = contract.settings
    own = {"PENSTOCK_HOME": str(settings.home), "PENSTOCK_ENGINE": settings.engine}
    return {**os.environ, **own, **({"PENSTOCK_DOCKER_HOST": settings.docker_host} if settings.docker_host else {})}
