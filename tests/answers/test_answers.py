"""What a forge is told of runs: the newest state, once, and not lost whatever is away."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from answering import MAIN, REQUEST, Clock, Forges, Runs
from forge_server import COMMIT, TOKEN, Answer, ForgeServer
from forge_servers import SERVERS

from penstock.answers import outbox
from penstock.answers.connections import Connection, connect, disconnect, get_connection
from penstock.answers.deliver import Deliverer, pause
from penstock.answers.outbox import Item
from penstock.artifacts import open_store
from penstock.events import inbox
from penstock.forges.clients import Link
from penstock.pipeline import records
from penstock.processes import wait_until
from penstock.settings import Settings
from penstock.sources.projects import remove_project
from penstock.state.tables import inbox as events
from penstock.steps.context import Artifact, StepResult
from penstock.vault import Vault

Connected = Callable[..., Connection]
OTHER = "b" * 40


def items(database: sa.Engine, **more: str) -> dict[str, Item]:
    """By what it is."""
    return {item.context: item for item in outbox.list_items(database, **more)}


def only(database: sa.Engine) -> Item:
    (item,) = outbox.list_items(database)
    return item


def test_a_run_is_shown_while_it_runs_and_when_it_ends(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer
) -> None:
    """Queued, running, and how it ended, with the run's page and a line that says why."""
    connected(forge)
    info = runs.queue()
    deliverer.round()
    assert (forge.statuses[-1]["state"], forge.statuses[-1]["description"]) == ("pending", "waits to start")
    records.start_run(runs.database, info.id)
    deliverer.round()
    assert forge.statuses[-1]["description"] == "runs"
    runs.end(info, "failed", "exit code 1")
    deliverer.round()
    shown = forge.statuses[-1]
    assert (shown["state"], shown["context"]) == ("failure", "penstock/push")
    assert shown["description"] == "failed in 0 s: test: exit code 1"
    assert shown["target_url"] == f"http://127.0.0.1:8702/run?id={info.id}"


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_every_forge_shows_how_a_run_ended(
    name: str, forges: Forges, runs: Runs, connected: Connected, deliverer: Deliverer
) -> None:
    """From the run's records to the forge's page."""
    forge = forges(name)
    connected(forge)
    info = runs.start()
    deliverer.round()
    runs.end(info)
    deliverer.round()
    (state,) = forge.shown().values()
    assert state.lower() in ("success", "successful", "succeeded")
    assert only(runs.database).state == "sent"


def test_a_state_that_nobody_saw_in_time_is_not_sent(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer
) -> None:
    """A short run is told once: how it ended."""
    connected(forge)
    runs.end(runs.start())
    deliverer.round()
    assert [one["state"] for one in forge.statuses] == ["success"]
    assert deliverer.round() == 0


def test_steps_are_shown_where_asked_for(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer
) -> None:
    """From when they start; one that waits says nothing yet."""
    connected(forge, steps=True)
    info = runs.start()
    deliverer.round()
    assert forge.shown() == {"penstock/push": "pending", "penstock/push/build": "pending"}
    runs.end(info, "timed_out", "longer than 5 min")
    deliverer.round()
    assert forge.shown()["penstock/push/build"] == "success"
    assert forge.shown()["penstock/push/test"] == "failure"


def test_nothing_is_told_of_a_project_without_a_forge(runs: Runs, deliverer: Deliverer, database: sa.Engine) -> None:
    """And nothing is kept for later either."""
    runs.end(runs.start())
    assert deliverer.round() == 0
    assert outbox.list_items(database) == ()
    assert outbox.look(database, str, deliverer._clock()) == 0


def test_what_was_over_before_the_forge_was_connected_is_not_told(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """Years of history do not become thousands of statuses; what still runs is told."""
    runs.end(runs.start("a" * 40))
    skipped_event(database, "the commit's message says [skip ci]", "c" * 40)
    info = runs.start()
    connected(forge, steps=True, skipped=True)
    runs.end(info)
    deliverer.round()
    assert {item.target for item in outbox.list_items(database)} == {COMMIT}


def test_push_and_pull_request_of_one_commit_are_two_statuses(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer
) -> None:
    """One does not hide what became of the other."""
    connected(forge, comments=False)
    push, request = runs.start(), runs.pull_request()
    runs.end(push)
    runs.end(request, "failed", "exit code 1")
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success", "penstock/pull_request": "failure"}


def test_the_newest_run_of_a_commit_is_shown(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer
) -> None:
    """A rerun takes the former's place, and the former's late end does not take it back."""
    connected(forge)
    former, again = runs.start(), runs.start()
    runs.end(again)
    deliverer.round()
    runs.end(former, "failed", "exit code 1")
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success"}


def test_a_forge_that_is_down_for_an_hour_is_told_in_the_end(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock, database: sa.Engine
) -> None:
    """Every run that ended meanwhile, once; and the forge was not asked for each of them all the time."""
    connected(forge)
    forge.away = True
    ended = [runs.start(f"{number:040x}") for number in range(1, 6)]
    for info in ended:
        runs.end(info)
    for _ in range(3600 // 5):
        deliverer.round()
        clock.forward(seconds=5)
    assert 5 <= len(forge.seen) <= 40
    assert forge.statuses == []
    assert "does not answer" in str(get_connection(database, "shop").reason)

    forge.away = False
    clock.forward(minutes=31)
    _any_commit(forge)
    while deliverer.round():
        continue
    assert sorted(str(seen.path[-40:]) for seen in forge.seen[-5:]) == [info.commit for info in ended]
    assert {item.state for item in outbox.list_items(database)} == {"sent"}
    assert get_connection(database, "shop").reason is None


def _any_commit(forge: ForgeServer) -> None:
    status = forge._status  # type: ignore[attr-defined]
    forge._status = lambda seen, _commit: status(seen, COMMIT)  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_broken_forge_is_tried_again_after_a_while(
    *, status: int, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock
) -> None:
    """Not at once, and what is shown in the end is the newest state."""
    connected(forge)
    info = runs.start()
    forge.troubles = [Answer(status), Answer(status)]
    assert deliverer.round() == 1
    assert deliverer.round() == 0
    runs.end(info)
    assert deliverer.round() == 0
    clock.forward(seconds=2)
    assert deliverer.round() == 1
    clock.forward(seconds=4)
    deliverer.round()
    assert [one["state"] for one in forge.statuses] == ["success"]


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_an_answer_that_was_lost_makes_no_second_status(
    *, name: str, forges: Forges, runs: Runs, connected: Connected, deliverer: Deliverer, clock: Clock
) -> None:
    """The connection is cut after the forge took the request."""
    forge = forges(name)
    connected(forge)
    runs.end(runs.start())
    forge.troubles = [Answer(200, cut=True)]
    deliverer.round()
    clock.forward(seconds=10)
    deliverer.round()
    assert len(forge.shown()) == 1
    assert only(runs.database).state == "sent"


def test_a_limit_lets_the_forge_rest_for_as_long_as_it_says(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock
) -> None:
    """Nothing is asked before, of any run."""
    connected(forge)
    runs.start()
    forge.troubles = [forge.limited]
    deliverer.round()
    clock.forward(seconds=16)
    runs.start(OTHER)
    assert deliverer.round() == 0
    clock.forward(seconds=1)
    assert deliverer.round() == 2


def test_the_last_request_that_is_left_is_not_followed_by_another(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock
) -> None:
    """The rest of the round waits for the limit's end, and is free for it."""
    connected(forge)
    runs.start(event="push")
    runs.start(event="tag", ref="refs/tags/v1")
    reset = str(int(clock().timestamp()) + 30)
    forge.troubles = [Answer(201, {"id": 1}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset})]
    assert deliverer.round() == 1
    assert deliverer.round() == 0
    clock.forward(seconds=31)
    assert deliverer.round() == 1


def test_a_limit_that_says_for_ever_is_a_day(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock, database: sa.Engine
) -> None:
    """A forge's mistake does not silence it for years."""
    connected(forge)
    runs.start()
    forge.troubles = [Answer(429, {}, {"Retry-After": "999999999"})]
    deliverer.round()
    assert get_connection(database, "shop").again_at == clock() + timedelta(days=1)


def test_a_revoked_token_is_shown_and_tried_again_on_demand(
    *,
    runs: Runs,
    forge: ForgeServer,
    connected: Connected,
    deliverer: Deliverer,
    clock: Clock,
    database: sa.Engine,
) -> None:
    """Nothing asks in vain; with a new token and `retry` it is told."""
    connected(forge)
    forge.token = "another-token"
    runs.end(runs.start())
    deliverer.round()
    clock.forward(days=1)
    assert deliverer.round() == 0
    failed = only(database)
    assert (failed.state, failed.attempts) == ("failed", 1)
    assert "401 Bad credentials" in str(failed.reason)
    assert TOKEN not in str(failed.reason)
    assert "401" in str(get_connection(database, "shop").reason)

    connected(forge)
    assert outbox.retry(database, clock(), project="shop") == 1
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success"}
    assert get_connection(database, "shop").reason is None


@pytest.mark.parametrize("status", [403, 404, 422])
def test_what_is_refused_stays_refused_until_it_changes(
    *, status: int, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """The next state is another request, which may be taken."""
    connected(forge)
    info = runs.start()
    forge.troubles = [Answer(status, {"message": "no"})]
    deliverer.round()
    assert (only(database).state, deliverer.round()) == ("failed", 0)
    runs.end(info)
    deliverer.round()
    assert only(database).state == "sent"


def test_nobody_tells_what_is_days_old(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock, database: sa.Engine
) -> None:
    """It is given up with the reason that it failed for."""
    connected(forge)
    runs.start()
    forge.away = True
    deliverer.round()
    clock.forward(days=6)
    deliverer.round()
    assert only(database).state == "failed"
    assert str(only(database).reason).startswith("given up: ")


def test_without_a_token_nothing_is_asked(
    *,
    runs: Runs,
    forge: ForgeServer,
    connected: Connected,
    deliverer: Deliverer,
    clock: Clock,
    vault: Vault,
    database: sa.Engine,
) -> None:
    """It waits until there is one."""
    connected(forge)
    vault.remove("penstock-git", "token-shop")
    runs.start()
    deliverer.round()
    assert forge.seen == []
    assert "has no secret" in str(get_connection(database, "shop").reason)
    vault.write("penstock-git", "token-shop", TOKEN.encode())
    clock.forward(minutes=1)
    deliverer.round()
    assert forge.shown() == {"penstock/push": "pending"}


def test_one_forge_that_is_away_keeps_no_other_waiting(
    *,
    runs: Runs,
    forges: Forges,
    connected: Connected,
    deliverer: Deliverer,
    make_repository: Callable[..., object],
    database: sa.Engine,
) -> None:
    """Each connection rests for itself."""
    from penstock.sources.projects import add_project

    other = make_repository("api", {"readme": "x"})
    add_project(database, "api", str(other.root))  # type: ignore[attr-defined]
    away, there = forges("gitlab"), forges("gitea")
    connected(away)
    connected(there, project="api")
    away.away = True
    runs.start()
    runs.start(project="api")
    deliverer.round()
    assert there.shown() == {"penstock/push": "pending"}
    assert items(database, project="shop")["penstock/push"].state == "waiting"


def test_what_changes_while_it_is_told_is_told_again(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock, database: sa.Engine
) -> None:
    """The former state's delivery does not count for the newer one."""
    connected(forge)
    info = runs.start()
    outbox.look(database, str, clock())
    ((_, (item,)),) = outbox.claim(database, clock())
    runs.end(info)
    outbox.look(database, str, clock())
    assert outbox.claim(database, clock()) == ()  # one is on its way
    outbox.sent(database, item, None, clock())
    assert only(database).state == "waiting"
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success"}


def test_two_that_look_at_once_tell_once(
    runs: Runs, forge: ForgeServer, connected: Connected, clock: Clock, database: sa.Engine
) -> None:
    """What one has claimed is not the other's, until the claim lapses."""
    connected(forge)
    runs.start()
    outbox.look(database, str, clock())
    assert len(outbox.claim(database, clock())) == 1
    assert outbox.claim(database, clock()) == ()
    clock.forward(minutes=11)
    assert len(outbox.claim(database, clock())) == 1


_KILLED = """
import os, signal, sys
from penstock.answers import deliver, outbox
from penstock.answers.deliver import Deliverer
from penstock.forges.clients import Link, open_client
from penstock.settings import load_settings
from penstock.state.database import create_engine

settings = load_settings()
where, count = sys.argv[1], [0]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "before":
    outbox.claim = die
elif where == "claimed":
    Deliverer._show = die
else:
    outbox.sent = die
link = Link(["127.0.0.1"], timeout_s=60.0)
Deliverer(create_engine(settings), settings, opened=lambda of, secret: open_client(of.place, secret, link)).round()
"""


@pytest.mark.parametrize("where", ["before", "claimed", "shown"])
def test_killed_at_any_moment_it_is_told_once(
    *,
    where: str,
    runs: Runs,
    forge: ForgeServer,
    connected: Connected,
    deliverer: Deliverer,
    clock: Clock,
    settings: Settings,
    env: dict[str, str],
) -> None:
    """`kill -9` after it was found, after it was claimed, and after the forge took it."""
    connected(forge)
    runs.end(runs.start())
    key = {"PENSTOCK_VAULT_KEY_FILE": str(settings.vault_key_file)}
    path = str(Path(__file__).parents[2])
    environment = {**os.environ, **env, **key, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", _KILLED, where], env=environment, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(forge.statuses) == (1 if where == "shown" else 0)
    clock.forward(minutes=30)
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success"}
    assert only(runs.database).state == "sent"


def test_the_thread_tells_by_itself_and_ends(
    *, runs: Runs, forge: ForgeServer, connected: Connected, database: sa.Engine, settings: Settings, link: Link
) -> None:
    """As the API runs it."""
    from penstock.forges.clients import open_client

    real = attrs.evolve(link, clock=Link().clock)
    made = Deliverer(database, settings, opened=lambda of, secret: open_client(of.place, secret, real))
    connected(forge)
    made.start()
    try:
        runs.end(runs.start())
        made.wake()
        assert wait_until(lambda: forge.shown() == {"penstock/push": "success"}, limit_s=60)
    finally:
        made.stop()
    assert "answers" not in {thread.name for thread in threading.enumerate()}


def skipped_event(database: sa.Engine, reason: str, commit: str = COMMIT, *, by_rule: bool = True) -> None:
    """A push that came in and never runs."""
    found = inbox.accept(database, inbox.Push("shop", MAIN, commit))
    assert found is not None
    inbox.close(database, found, reason=reason, by_rule=by_rule)


@pytest.mark.parametrize("reason", ["no changed file is among docs/**", "the commit's message says [skip ci]"])
def test_what_the_rules_leave_out_is_a_success_where_asked(
    *, reason: str, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """A required check does not keep a change of the documentation from being merged."""
    connected(forge, skipped=True)
    skipped_event(database, reason)
    deliverer.round()
    assert forge.shown() == {"penstock/push": "success"}
    assert forge.statuses[-1]["description"] == f"skipped: {reason}"


@pytest.mark.parametrize(
    "reason",
    ["a newer push of its group came (b1b1b1b1b1b1)", "no changed file is among docs/**, as a branch is called", ""],
)
def test_what_was_not_looked_at_is_no_success(
    *, reason: str, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """Only a rule makes a success of nothing, whatever the reason's words are."""
    connected(forge, skipped=True)
    skipped_event(database, reason, by_rule=False)
    deliverer.round()
    assert forge.shown() == {}


def test_what_was_left_out_is_not_told_unless_asked(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """A check that is not required needs no empty success."""
    connected(forge)
    skipped_event(database, "the commit's message says [skip ci]")
    deliverer.round()
    assert forge.shown() == {}


def test_an_event_that_was_left_out_hides_no_run(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """Whichever comes first: a failed run of the commit stays failed."""
    connected(forge, skipped=True)
    runs.end(runs.start(), "failed", "exit code 1")
    deliverer.round()
    skipped_event(database, "the commit's message says [skip ci]")
    deliverer.round()
    assert forge.shown() == {"penstock/push": "failure"}
    with database.connect() as connection:
        assert connection.execute(sa.select(events.c.told)).scalar() == "ignored"


def test_artifacts_are_put_to_a_tags_release_where_asked(
    *,
    runs: Runs,
    forge: ForgeServer,
    connected: Connected,
    deliverer: Deliverer,
    settings: Settings,
    database: sa.Engine,
) -> None:
    """Those whose keys were named, when the run succeeded; another tag's run that failed puts nothing."""
    blob = open_store(settings.artifacts_path).put_bytes(b"made")
    made = [Artifact(key, f"out/{key}.bin", "file", blob.digest, blob.size_bytes) for key in ("dist-a", "log")]
    connected(forge, assets=("dist*",))
    tag = {"event": "tag", "ref": "refs/tags/v1", "about": {"tag": "v1"}}
    runs.end(runs.start(**tag), "succeeded", None, *made)
    runs.end(runs.start(OTHER, event="tag", ref="refs/tags/v2"), "failed", "exit code 1", *made)
    deliverer.round()
    assert forge.files == {"dist-a.bin": b"made"}  # type: ignore[attr-defined]
    assert list(forge.releases) == ["v1"]  # type: ignore[attr-defined]


def test_a_pull_request_without_scans_gets_no_comment(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """There is nothing to say."""
    connected(forge)
    runs.end(runs.pull_request())
    deliverer.round()
    assert forge.texts() == []
    assert items(database)["findings"].state == "sent"


def test_answers_go_with_the_connection_and_the_project(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, vault: Vault, database: sa.Engine
) -> None:
    """Nothing is told any more; the project keeps its token for its hook and for what is read again."""
    connected(forge)
    runs.start()
    deliverer.round()
    disconnect(database, vault, "shop")
    assert outbox.list_items(database) == ()
    assert [held.name for held in vault.names("penstock-git")] == ["token-shop"]
    runs.start()
    deliverer.round()
    assert len(forge.seen) == 1
    connected(forge)
    remove_project(database, "shop")
    assert outbox.list_items(database) == ()


def test_old_answers_are_forgotten(
    *, runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, clock: Clock, database: sa.Engine
) -> None:
    """Months later; what waits is not."""
    connected(forge)
    runs.start()
    deliverer.round()
    clock.forward(days=91)
    runs.start(OTHER)
    outbox.look(database, str, clock())
    assert outbox.forget_old(database, clock()) == 1
    assert only(database).state == "waiting"


def test_pauses_grow_to_half_an_hour() -> None:
    """And are shortened by chance, by half at most."""
    assert [pause(n, 0.0).total_seconds() for n in (0, 1, 2, 20, 10_000)] == [2, 4, 8, 1800, 1800]
    assert pause(1, 1.0) == timedelta(seconds=2)


def test_a_pull_requests_number_and_branch_are_told(
    runs: Runs, forges: Forges, connected: Connected, deliverer: Deliverer
) -> None:
    """GitLab files the status under the source branch, except for a fork's, which it does not have."""
    gitlab = forges("gitlab")
    connected(gitlab, comments=False)
    runs.pull_request()
    deliverer.round()
    runs.pull_request(fork=True)
    deliverer.round()
    assert [one.get("ref") for one in gitlab.statuses] == ["orders"]
    assert "ref" not in gitlab.seen[-2].value
    assert REQUEST["source"] == "orders"


def test_a_step_that_is_cut_off_is_told_with_its_run(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """A cancelled run leaves no step that seems to run."""
    connected(forge, steps=True)
    info = runs.start()
    deliverer.round()
    records.finish_run(database, info.id, cancelled="ada stopped it")
    deliverer.round()
    assert forge.shown() == {
        "penstock/push": "error",
        "penstock/push/build": "error",
        "penstock/push/test": "success",
    }


def test_a_step_that_ran_again_is_told_again(
    runs: Runs, forge: ForgeServer, connected: Connected, deliverer: Deliverer, database: sa.Engine
) -> None:
    """Its newest attempt counts."""
    connected(forge, steps=True)
    info = runs.start()
    records.finish_step(database, info, "build", StepResult("infra_error", "the engine is away"))
    deliverer.round()
    assert forge.shown()["penstock/push/build"] == "error"
    records.start_step(database, info.id, "build")
    records.finish_step(database, info, "build", StepResult("succeeded"))
    deliverer.round()
    assert forge.shown()["penstock/push/build"] == "success"


def test_an_address_in_a_private_network_is_not_connected(
    database: sa.Engine, vault: Vault, forge: ForgeServer, runs: Runs
) -> None:
    """Unless the platform's operator allows it."""
    from penstock.errors import AccessError

    with pytest.raises(AccessError, match="not a public address"):
        connect(database, vault, "shop", "github", secret=TOKEN, url=forge.url, repository="shop/api")
    assert vault.names("penstock-git") == ()
