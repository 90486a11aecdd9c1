"""The kubernetes engine against an API server at the wire: what it asks for, and what it makes of each answer."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
import yaml
from kubernetes_api import (
    UNSCHEDULABLE,
    FakeCluster,
    Scenario,
    active,
    copying,
    pending,
    running,
    serving,
    terminated,
    waiting,
)

from penstock.engines import Exit, Job, Probe, Sidecar, open_engine
from penstock.engines.kubernetes import JobsEngine
from penstock.errors import Cancelled, InputError, PenstockError, PlatformError, StepFailure
from penstock.pipeline.cancel import CancelToken
from penstock.processes import wait_until
from penstock.settings import Settings, load_settings


@attrs.define
class Bench:
    """Runs jobs on a cluster where a scenario happens."""

    engine: JobsEngine
    cluster: FakeCluster
    workspace: Path
    printed: bytes = b""

    def job(self, **options: object) -> Job:
        given: dict[str, object] = {"image": "shop:1"} | options
        return Job("run-1", "test", ("/bin/sh", "-c", "make"), self.workspace, **given)  # type: ignore[arg-type]

    def run(self, token: CancelToken | None = None, **options: object) -> Exit:
        return self.engine.run(self.job(**options), self._take, token or CancelToken())

    def says(self) -> str:
        return self.printed.decode()

    def _take(self, chunk: bytes) -> None:
        self.printed += chunk


def settings_for(address: str, folder: Path) -> Settings:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": address}}],
        "users": [{"name": "it", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return load_settings(
        {
            "PENSTOCK_HOME": str(folder / "home"),
            "PENSTOCK_ENGINE": "kubernetes",
            "PENSTOCK_KUBECONFIG": str(file),
            "PENSTOCK_KUBERNETES_NAMESPACE": "ci",
        }
    )


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """make_bench(scenario…) → a cluster where that happens."""
    with ExitStack() as stack:

        def make(**scenario: object) -> Bench:
            cluster = FakeCluster(tmp_path / "pod", Scenario(**scenario))  # type: ignore[arg-type]
            address = stack.enter_context(serving(cluster))
            workspace = tmp_path / "workspaces" / "step"
            workspace.mkdir(parents=True)
            engine = JobsEngine(settings_for(address, tmp_path), look_every_s=0.05)
            return Bench(engine, cluster, workspace)

        yield make


# A job that goes well


def test_workspace_goes_in_and_comes_back(make_bench: Callable[..., Bench]):
    """Every file as it was, what the job made, and not what it deleted; modes and links too."""

    def work(folder: Path) -> None:
        assert (folder / "src" / "main.py").read_text() == "print()"
        assert (folder / "run.sh").stat().st_mode & 0o111
        (folder / "built").write_bytes(b"x" * 3_000_000)
        (folder / "deleted").unlink()

    bench = make_bench(work=work)
    (bench.workspace / "src").mkdir()
    (bench.workspace / "src" / "main.py").write_text("print()")
    (bench.workspace / "src" / "-n odd\nname").write_text("odd")
    (bench.workspace / "run.sh").touch(mode=0o755)
    (bench.workspace / "deleted").touch()
    (bench.workspace / "link").symlink_to("src/main.py")
    ended = bench.run()
    assert (ended.state, ended.code, ended.seconds) == ("exited", 0, 7.0)
    assert (bench.workspace / "built").stat().st_size == 3_000_000
    assert (bench.workspace / "src" / "-n odd\nname").read_text() == "odd"
    assert (bench.workspace / "link").readlink() == Path("src/main.py")
    assert not (bench.workspace / "deleted").exists()
    assert [path.name for path in bench.workspace.parent.iterdir()] == ["step"]


def test_empty_workspace_is_fine(make_bench: Callable[..., Bench]):
    """There is nothing to copy, and the job begins."""
    assert make_bench().run().code == 0


def test_nothing_is_left_in_the_cluster(make_bench: Callable[..., Bench]):
    """Job, Secret and NetworkPolicy; the last goes with its owner, the Job."""
    bench = make_bench()
    bench.run(secrets={"token": b"hush"})
    assert {kind for kind, _ in bench.cluster.objects} <= {"networkpolicies"}
    (reference,) = bench.cluster.made_of("NetworkPolicy")["metadata"]["ownerReferences"]
    name = bench.cluster.made_of("Job")["metadata"]["name"]
    assert (reference["kind"], reference["uid"]) == ("Job", f"uid-of-{name}")


def test_job_begins_after_it_has_been_closed_off(make_bench: Callable[..., Bench]):
    """The NetworkPolicy and the Secret are there before its Pod is."""
    bench = make_bench()
    bench.run(secrets={"token": b"hush"})
    writes = [call.split("/")[0] + call.rsplit("/", 1)[1] for call in bench.cluster.calls if call.startswith("P")]
    assert writes[:3] == ["POST jobs", "POST networkpolicies", "POST secrets"]
    assert writes[3].startswith("PATCH penstock-")
    assert bench.cluster.made_of("Job")["spec"]["suspend"] is True


def test_exit_code_is_the_commands(make_bench: Callable[..., Bench]):
    """And the workspace comes back after a failure too."""
    bench = make_bench(
        after=[active(running("job")), active(terminated("job", 7))], work=lambda folder: (folder / "out").touch()
    )
    assert bench.run().code == 7
    assert (bench.workspace / "out").exists()


def test_output_streams_once_and_whole(make_bench: Callable[..., Bench]):
    """Each line once, although the log is read again at the end; a last one without its end too."""
    log = [
        b"2026-03-01T10:00:00.1Z first\n2026-03-01T10:00:00.12Z sec",
        b"ond\n2026-03-01T10:00:00.2Z \n",
        b"2026-03-01T10:00:01Z last",
    ]
    after = [active(running("job")), active(running("job")), active(running("job")), active(terminated("job", 0))]
    bench = make_bench(log=log, after=after)
    bench.run()
    assert bench.says().endswith("first\nsecond\n\nlast")
    assert bench.says().count("first") == 1
    assert bench.cluster.logs_read >= 2


def test_it_says_what_it_waits_for(make_bench: Callable[..., Bench]):
    """Once, not at every look."""
    bench = make_bench(before=[None, UNSCHEDULABLE, UNSCHEDULABLE, copying()])
    bench.run()
    words = "waiting for a node: Unschedulable: 0/3 nodes are available: 3 Insufficient memory.\n"
    assert bench.says().count(words) == 1


# What it asks the cluster for


def test_pod_is_closed(make_bench: Callable[..., Bench]):
    """No capabilities, no more privileges, a read-only root, no service account, no second try."""
    bench = make_bench()
    bench.run()
    spec = bench.cluster.made_of("Job")["spec"]
    pod = spec["template"]["spec"]
    assert (spec["backoffLimit"], pod["restartPolicy"], pod["automountServiceAccountToken"]) == (0, "Never", False)
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize(("network", "types"), [(False, ["Ingress", "Egress"]), (True, ["Ingress"])])
def test_network_is_off_unless_asked(make_bench: Callable[..., Bench], network: bool, types: list[str]):
    """A policy for this job's Pod alone, with no exceptions."""
    bench = make_bench()
    bench.run(network=network)
    policy = bench.cluster.made_of("NetworkPolicy")["spec"]
    labels = bench.cluster.made_of("Job")["spec"]["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == types
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert not {"ingress", "egress"} & set(policy)


def test_limits_are_asked_for(make_bench: Callable[..., Bench]):
    """Of memory and processors, for the job's container; and of time."""
    bench = make_bench()
    bench.run(cpus=0.5, memory_bytes=1 << 29, timeout_s=60)
    spec = bench.cluster.made_of("Job")["spec"]
    limits = {"cpu": "500m", "memory": str(1 << 29)}
    assert spec["template"]["spec"]["containers"][0]["resources"] == {"limits": limits, "requests": limits}
    assert spec["activeDeadlineSeconds"] > 60
    assert spec["ttlSecondsAfterFinished"] > 0


def test_secrets_are_in_a_secret_alone(make_bench: Callable[..., Bench]):
    """Files in the node's memory for the job's container; in no Job, no environment, no log."""
    bench = make_bench()
    bench.run(secrets={"token": b"very-hush"})
    pod = bench.cluster.made_of("Job")["spec"]["template"]["spec"]
    assert bench.cluster.made_of("Secret")["data"] == {"token": "dmVyeS1odXNo"}
    mounted = [c["name"] for c in pod["containers"] if any(m["name"] == "secrets" for m in c["volumeMounts"])]
    assert mounted == ["job"]
    assert {"name": "PENSTOCK_SECRETS", "value": "/run/secrets"} in pod["containers"][0]["env"]
    assert "very-hush" not in str(bench.cluster.made_of("Job"))
    assert "very-hush" not in bench.says()


def test_variables_arrive_as_written(make_bench: Callable[..., Bench]):
    """Kubernetes would replace what looks like a reference to another variable."""
    bench = make_bench()
    bench.run(env={"A": "$(HOME) costs $5"}, work_dir="sub/dir")
    main = bench.cluster.made_of("Job")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "A", "value": "$$(HOME) costs $5"} in main["env"]
    assert main["workingDir"] == "/workspace/sub/dir"


def test_services_are_sidecars_with_names_and_probes(make_bench: Callable[..., Bench]):
    """They begin after the workspace is there, keep running, and are found by their names."""
    services = (
        Sidecar("db", image="postgres:18", env={"A": "b"}, ready=Probe(port=5432, limit_s=30)),
        Sidecar("web", image="web:1", argv=("serve",), ready=Probe(port=80, http="/ready", interval_s=2, limit_s=9)),
        Sidecar("cli", image="cli:1", ready=Probe(command=("true",))),
    )
    bench = make_bench()
    bench.run(services=services)
    pod = bench.cluster.made_of("Job")["spec"]["template"]["spec"]
    names = [container["name"] for container in pod["initContainers"]]
    db, web, cli = pod["initContainers"][1:]
    assert names == ["workspace-in", "service-db", "service-web", "service-cli"]
    assert {db["restartPolicy"], web["restartPolicy"], cli["restartPolicy"]} == {"Always"}
    assert pod["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["db", "web", "cli"]}]
    assert (db["startupProbe"]["tcpSocket"], db["startupProbe"]["failureThreshold"]) == ({"port": 5432}, 30)
    assert "command" not in db
    assert web["startupProbe"]["httpGet"] == {"path": "/ready", "port": 80}
    assert (web["startupProbe"]["periodSeconds"], web["startupProbe"]["failureThreshold"]) == (2, 5)
    assert cli["startupProbe"]["exec"] == {"command": ["true"]}


# How it ends otherwise


def test_out_of_memory_is_its_own_state(make_bench: Callable[..., Bench]):
    """As the kubelet says it."""
    bench = make_bench(after=[active(running("job")), active(terminated("job", 137, "OOMKilled"))])
    assert bench.run().state == "out_of_memory"


NOT_FOUND = 'Back-off pulling image "shop:1": ErrImagePull: docker.io/library/shop:1: not found'
TROUBLES = [
    (pending(waiting("workspace-in", "ImagePullBackOff", NOT_FOUND)), StepFailure, "image shop:1 cannot be pulled"),
    (
        pending(waiting("workspace-in", "ImagePullBackOff", "dial tcp 10.0.0.1:443: i/o timeout")),
        PlatformError,
        "cannot be pulled: ImagePullBackOff: dial tcp",
    ),
    (
        pending(waiting("workspace-in", "InvalidImageName", "couldn't parse image name")),
        StepFailure,
        "mend its name, or give the cluster the right to pull it",
    ),
    (
        pending(waiting("service-db", "CreateContainerConfigError", "runAsNonRoot")),
        StepFailure,
        "container service-db cannot be started: CreateContainerConfigError: runAsNonRoot",
    ),
    (
        pending(terminated("workspace-in", 127, "Error")),
        StepFailure,
        "its image cannot take the workspace: exit code 127; it needs /bin/sh and tar",
    ),
    (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
        PlatformError,
        "its node has evicted it: The node was low on resource: ephemeral-storage.",
    ),
    (
        {"phase": "Failed", "reason": "NodeLost", "message": "Node worker-2 which was running pod is unresponsive"},
        PlatformError,
        "its Pod has failed: NodeLost: Node worker-2",
    ),
    ({"phase": "Unknown"}, PlatformError, "the node that its Pod runs on does not answer"),
    (
        pending(
            conditions=[
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "default-scheduler: preempting to accommodate a higher priority pod",
                }
            ]
        ),
        PlatformError,
        "the cluster has taken its Pod away: PreemptionByScheduler",
    ),
]


@pytest.mark.parametrize(("status", "kind", "words"), TROUBLES)
def test_trouble_before_the_job_is_told_apart(
    make_bench: Callable[..., Bench], status: dict[str, object], kind: type[PenstockError], words: str
):
    """Whose fault it is, in the cluster's own words; nothing is left."""
    bench = make_bench(before=[None, status])
    with pytest.raises(kind, match=words.replace("(", r"\(")):
        bench.run()
    assert not [key for key in bench.cluster.objects if key[0] == "jobs"]


def test_command_that_cannot_be_started_is_the_steps_failure(make_bench: Callable[..., Bench]):
    """It is not in the image."""
    message = 'exec: "make": executable file not found in $PATH'
    bench = make_bench(after=[active(terminated("job", 128, "StartError", message))])
    with pytest.raises(StepFailure, match="its command cannot be started: StartError: exec"):
        bench.run()


def test_service_that_ends_is_the_steps_failure(make_bench: Callable[..., Bench]):
    """With its last words; the cluster would start it again and again."""
    db = waiting("service-db", "CrashLoopBackOff", "back-off 10s restarting failed container")
    db |= {"restartCount": 1, "lastState": terminated("x", 3)["state"]}
    bench = make_bench(after=[active(waiting("job", "PodInitializing"), db)], words="no such database\n")
    with pytest.raises(StepFailure, match='service "db" did not get ready: it ended with exit code 3: no such'):
        bench.run(services=(Sidecar("db", image="postgres:18"),))


def test_pod_that_vanishes_is_the_platforms_fault(make_bench: Callable[..., Bench]):
    """Somebody deleted it, or its node is gone."""
    bench = make_bench(after=[active(running("job")), None])
    with pytest.raises(PlatformError, match="its Pod has vanished"):
        bench.run()


def test_time_limit_ends_it(make_bench: Callable[..., Bench]):
    """It begins with the job's container; the Job is deleted."""
    bench = make_bench(after=[active(running("job"))])
    assert bench.run(timeout_s=1).state == "timed_out"
    assert not [key for key in bench.cluster.objects if key[0] == "jobs"]


def test_deadline_of_the_cluster_is_a_time_out_too(make_bench: Callable[..., Bench]):
    """The safety net for a Penstock that was away."""
    late = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer"}
    assert make_bench(after=[active(running("job")), late]).run().state == "timed_out"


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancel_deletes_the_job(make_bench: Callable[..., Bench], when: str):
    """While it waits for a node, and while it runs."""
    forever = {"before": {"before": [None, UNSCHEDULABLE]}, "after": {"after": [active(running("job"))]}}[when]
    bench, token, result = make_bench(**forever), CancelToken(), []
    worker = threading.Thread(target=lambda: result.append(bench.run(token)))
    worker.start()
    assert wait_until(lambda: any("/pods" in call for call in bench.cluster.calls[-1:]), limit_s=30)
    token.cancel("enough")
    worker.join(20)
    assert result[0].state == "cancelled"
    assert not [key for key in bench.cluster.objects if key[0] == "jobs"]


def test_cancelled_run_starts_nothing(make_bench: Callable[..., Bench]):
    """Too late is not at all."""
    bench, token = make_bench(), CancelToken()
    token.cancel("over")
    with pytest.raises(Cancelled, match="over"):
        bench.run(token)
    assert not bench.cluster.calls


def test_workspace_that_comes_back_cut_off_is_an_error(make_bench: Callable[..., Bench]):
    """The one here stays as it was: half a workspace looks like a whole one."""
    bench = make_bench(cut_copy_out=True, work=lambda folder: (folder / "big").write_bytes(bytes(3_000_000)))
    (bench.workspace / "here").touch()
    with pytest.raises(PlatformError, match="copying the workspace out of the Pod was cut off"):
        bench.run()
    assert [path.name for path in bench.workspace.iterdir()] == ["here"]
    assert [path.name for path in bench.workspace.parent.iterdir()] == ["step"]


def test_workspace_is_lost_with_its_keeper(make_bench: Callable[..., Bench]):
    """A step whose results are gone has not succeeded."""
    bench = make_bench(after=[active(terminated("job", 0), keeper=terminated("workspace-out", 137))])
    with pytest.raises(PlatformError, match="its workspace is lost"):
        bench.run()


def test_image_without_tar_is_the_steps_failure(make_bench: Callable[..., Bench]):
    """It says what an image must have."""
    bench = make_bench(without_tar=True)
    (bench.workspace / "big").write_bytes(bytes(5_000_000))
    with pytest.raises(StepFailure, match=r"no-such-tar.*use an image that has /bin/sh, head and tar"):
        bench.run()


# What it refuses


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"image": None}, StepFailure, "needs an image; name one"),
        ({"read_only": (Path("/opt/tools"),)}, StepFailure, r"needs folders of Penstock's machine \(/opt/tools\)"),
        ({"secrets": {"a/b": b""}}, InputError, "no name for a secret"),
        ({"secrets": {"a": bytes(1_000_001)}}, InputError, "larger than 1 MB"),
        ({"services": (Sidecar("db", argv=("x",)),)}, StepFailure, 'service "db" needs an image'),
        ({"services": (Sidecar("db", image="x", ready=Probe()),)}, InputError, "its probe asks nothing"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(
    make_bench: Callable[..., Bench], options: dict[str, object], kind: type[PenstockError], words: str
):
    """Before anything is asked of it."""
    bench = make_bench()
    with pytest.raises(kind, match=words):
        bench.run(**options)
    assert not bench.cluster.calls


def test_shell_is_refused_in_words(make_bench: Callable[..., Bench]):
    """And says what to use instead."""
    bench = make_bench()
    with pytest.raises(InputError, match="opens no shell in test; use kubectl exec"):
        bench.engine.shell(bench.job())


# The API


@pytest.mark.parametrize(
    ("code", "remedy"), [(401, "login is valid"), (403, "role that docs/engines.md shows"), (404, "make the namespace")]
)
def test_refusal_says_what_and_the_remedy(make_bench: Callable[..., Bench], code: int, remedy: str):
    """In the API's words, with the status."""
    bench = make_bench(fail=[("POST .*/jobs", code)])
    with pytest.raises(PlatformError, match=rf"refuses to make a Job \({code}\): refused on purpose.*{remedy}"):
        bench.run()


def test_job_that_cannot_be_closed_off_does_not_begin(make_bench: Callable[..., Bench]):
    """No NetworkPolicy, no Pod."""
    bench = make_bench(fail=[("POST .*/networkpolicies", 403)])
    with pytest.raises(PlatformError, match="make a NetworkPolicy"):
        bench.run()
    assert not [call for call in bench.cluster.calls if call.startswith("PATCH")]
    assert not bench.cluster.objects


def test_command_that_the_api_refuses_is_one_line(make_bench: Callable[..., Bench]):
    """Without the headers of its answer."""
    bench = make_bench(refuse_commands=True)
    with pytest.raises(PlatformError, match="run a command in a Pod: the Kubernetes API does not answer: Handsh") as it:
        bench.run()
    assert "{" not in str(it.value)


def test_api_that_is_away_for_a_moment_is_waited_for(make_bench: Callable[..., Bench]):
    """An API server that restarts costs no run."""
    bench = make_bench(fail=[("GET .*/pods$", 503), ("GET .*/pods$", 500), ("GET .*/log$", 500)])
    assert bench.run().code == 0


def test_log_that_breaks_is_read_again(make_bench: Callable[..., Bench]):
    """The lines are there in the end."""
    bench = make_bench(log=[b"2026-03-01T10:00:00.1Z first\n"], fail=[("GET .*/log$", 500)])
    bench.run()
    assert bench.says().endswith("first\n")


def test_job_that_is_not_removed_is_said(make_bench: Callable[..., Bench]):
    """The result counts all the same; the cluster removes it after its time."""
    bench = make_bench(fail=[("DELETE .*/jobs", 403)])
    assert bench.run().code == 0
    assert "was not removed, the cluster will do so after its time" in bench.says()


def test_api_that_is_away_is_one_line(tmp_path: Path):
    """With no addresses of objects in it."""
    engine = JobsEngine(settings_for("http://127.0.0.1:1", tmp_path))
    (tmp_path / "w").mkdir()
    with pytest.raises(PlatformError, match="the Kubernetes API does not answer") as caught:
        engine.run(Job("r", "s", ("true",), tmp_path / "w", image="x"), lambda _chunk: None, CancelToken())
    assert "0x" not in str(caught.value)


def test_no_cluster_is_one_line(tmp_path: Path):
    """A kubeconfig that names none."""
    settings = settings_for("http://127.0.0.1:1", tmp_path)
    assert settings.kubeconfig is not None
    settings.kubeconfig.write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(PlatformError, match=r"no cluster is configured: .*; set PENSTOCK_KUBECONFIG"):
        JobsEngine(settings).reap("run-1")


def test_reap_deletes_the_jobs_of_a_run(make_bench: Callable[..., Bench]):
    """Of one step when it is named; of this home and run alone."""
    bench = make_bench(after=[active(running("job"))], fail=[("DELETE .*/jobs", 500)])
    bench.run(timeout_s=0.5)
    assert bench.engine.reap("run-2") == 0
    assert bench.engine.reap("run-1", "other") == 0
    other = JobsEngine(attrs.evolve(bench.engine.settings, home=Path("/elsewhere")))
    assert other.reap("run-1") == 0
    assert bench.engine.reap("run-1", "test") == 1
    assert bench.engine.reap("run-1") == 0


@pytest.mark.parametrize(
    ("image", "digest"),
    [(f"shop@sha256:{'a' * 64}", f"sha256:{'a' * 64}"), ("shop:1", None), ("shop@sha256:abc", None)],
)
def test_digest_is_the_one_that_is_written(tmp_path: Path, image: str, digest: str | None):
    """Only nodes resolve tags."""
    assert JobsEngine(settings_for("http://127.0.0.1:1", tmp_path)).image_digest(image) == digest


def test_settings_choose_the_engine(tmp_path: Path):
    """And nothing is asked of a cluster that nobody needs yet."""
    engine = open_engine(settings_for("http://127.0.0.1:1", tmp_path))
    assert (type(engine), engine.name) == (JobsEngine, "kubernetes")


def test_isolation_is_said_plainly(tmp_path: Path):
    """What is not certain too."""
    said = JobsEngine(settings_for("http://127.0.0.1:1", tmp_path)).isolation()
    assert "where the cluster's network enforces NetworkPolicies" in said
    assert "processes limited by the node alone" in said
