"""The inbox on a real PostgreSQL: each push is one event, whoever reports it and however often."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from git_builder import GitRepository

from penstock.errors import InputError
from penstock.events import inbox
from penstock.events.inbox import EventRecord, Push, accept, claim
from penstock.events.poll import poll, poll_all
from penstock.settings import Settings
from penstock.sources.projects import add_project, get_project, known_heads
from penstock.state.tables import inbox as events

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
MAIN = "refs/heads/main"


@pytest.fixture
def shop(database: sa.Engine, make_repository) -> GitRepository:
    """A connected repository with one commit."""
    made = make_repository("shop", {"readme": "hello"})
    add_project(database, "shop", str(made.root))
    return made


def push(commit: str, before: str | None = None, **more: str) -> Push:
    return Push("shop", MAIN, commit, before, **more)


def stored(database: sa.Engine) -> list[str]:
    """Commits in the order in which they came in."""
    return [event.commit for event in reversed(inbox.list_events(database))]


def lapse(database: sa.Engine) -> None:
    """Let every claim be older than a claim may be."""
    with database.begin() as connection:
        long_ago = sa.func.now() - inbox.CLAIM_LAPSES_AFTER - timedelta(seconds=1)
        connection.execute(sa.update(events).values(claimed_at=long_ago))


def test_push_reported_twice_is_one_event(database: sa.Engine, shop: GitRepository) -> None:
    """A hook that is repeated because its answer was lost says nothing new."""
    assert accept(database, push(A)) is not None
    assert accept(database, push(A)) is None
    assert stored(database) == [A]


def test_push_reported_at_the_same_time_by_many_is_one_event(database: sa.Engine, shop: GitRepository) -> None:
    """They wait for each other at the ref."""
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: accept(database, push(A)), range(16)))
    assert sum(answer is not None for answer in answers) == 1
    assert stored(database) == [A]


def test_hook_and_poll_of_one_push_are_one_event(settings: Settings, database: sa.Engine, shop: GitRepository) -> None:
    """Whichever comes first."""
    first = shop.git("rev-parse", "HEAD")
    accept(database, push(first))
    assert poll(database, settings, get_project(database, "shop")) == 0
    second = shop.commit({"readme": "hello again"})
    assert poll(database, settings, get_project(database, "shop")) == 1
    assert accept(database, push(second, first)) is None
    assert stored(database) == [first, second]


def test_poll_finds_every_branch_that_no_hook_told_of(
    settings: Settings, database: sa.Engine, shop: GitRepository
) -> None:
    """With who said so."""
    shop.git("branch", "feature/one")
    assert poll(database, settings, get_project(database, "shop")) == 2
    found = {(event.ref, event.source) for event in inbox.list_events(database)}
    assert found == {(MAIN, "poll"), ("refs/heads/feature/one", "poll")}


def test_repository_that_is_away_is_told_and_the_others_are_polled(
    settings: Settings, database: sa.Engine, make_repository
) -> None:
    """One line for the one, an event for the other."""
    gone = make_repository("gone", {"readme": "x"})
    add_project(database, "gone", str(gone.root))
    add_project(database, "shop", str(make_repository("shop", {"readme": "x"}).root))
    gone.root.rename(gone.root.with_name("elsewhere"))
    (trouble,) = poll_all(database, settings)
    assert trouble.startswith("gone: git ls-remote failed")
    assert [event.project for event in inbox.list_events(database)] == ["shop"]


def test_force_push_back_is_an_event_each_time(database: sa.Engine, shop: GitRepository) -> None:
    """There, back, there, back: what is deployed must follow the branch."""
    ways = [(A, None), (B, A), (A, B), (B, A), (A, B)]
    keys = [accept(database, push(commit, before)) for commit, before in ways]
    assert stored(database) == [A, B, A, B, A]
    assert len({event.key for event in keys if event}) == 5


def test_late_repetition_of_an_old_push_changes_nothing(database: sa.Engine, shop: GitRepository) -> None:
    """A forge delivers A→B again while the branch is at C: no event, and the branch stays at C."""
    for commit, before in ((A, None), (B, A), (C, B)):
        accept(database, push(commit, before))
    assert accept(database, push(B, A)) is None
    assert known_heads(database, "shop") == {MAIN: C}


def test_pushes_told_in_the_wrong_order_run_once_each(
    settings: Settings, database: sa.Engine, shop: GitRepository
) -> None:
    """B→C arrives before A→B: both are events, the branch is at C, and the poll has nothing to add."""
    shop.git("reset", "--quiet", "--hard")
    first = shop.git("rev-parse", "HEAD")
    second, third = shop.commit(), shop.commit()
    accept(database, push(first))
    assert accept(database, push(third, second)) is not None
    assert accept(database, push(second, first)) is not None
    assert known_heads(database, "shop") == {MAIN: third}
    assert poll(database, settings, get_project(database, "shop")) == 0
    assert stored(database) == [first, third, second]


def test_missed_push_does_not_hold_up_the_next(database: sa.Engine, shop: GitRepository) -> None:
    """B→C is told though nobody told of B: C is an event and the head."""
    accept(database, push(A))
    assert accept(database, push(C, B)) is not None
    assert known_heads(database, "shop") == {MAIN: C}


def test_new_branch_says_zeros_or_nothing(database: sa.Engine, shop: GitRepository) -> None:
    """Both mean the same push."""
    assert accept(database, push(A, "0" * 40)) is not None
    assert accept(database, push(A)) is None


@pytest.mark.parametrize(
    ("ref", "commit", "where"),
    [
        ("main", A, "ref"),
        ("refs/notes/v1", A, "ref"),
        ("refs/heads/a\0b", A, "ref"),
        (f"refs/heads/{'x' * 600}", A, "ref"),
        (MAIN, "HEAD", "commit"),
        (MAIN, "abc123", "commit"),
        (MAIN, "0" * 40, "commit"),
        (MAIN, A.upper(), "commit"),
    ],
)
def test_what_is_no_push_of_a_branch_is_refused(
    database: sa.Engine, shop: GitRepository, ref: str, commit: str, where: str
) -> None:
    """One line that names the field; nothing is stored."""
    with pytest.raises(InputError) as refused:
        accept(database, Push("shop", ref, commit))
    assert refused.value.where == where
    assert stored(database) == []


def test_many_claimers_share_the_events_without_overlap(database: sa.Engine, shop: GitRepository) -> None:
    """Each event is claimed by exactly one."""
    commits = [f"{n:040x}" for n in range(1, 41)]
    for commit in commits:
        accept(database, push(commit))
    with ThreadPoolExecutor(8) as threads:
        shares = list(threads.map(lambda _: claim(database, limit=5), range(16)))
    claimed = [event.commit for share in shares for event in share]
    assert sorted(claimed) == commits
    assert claim(database) == ()


def test_events_are_claimed_oldest_first(database: sa.Engine, shop: GitRepository) -> None:
    """As they came in."""
    for commit in (C, A, B):
        accept(database, push(commit))
    assert [event.commit for event in claim(database)] == [C, A, B]


def test_claim_that_came_to_nothing_lapses(database: sa.Engine, shop: GitRepository) -> None:
    """The next claimer is told that somebody tried before."""
    accept(database, push(A))
    (first,) = claim(database)
    assert not first.claimed_before
    assert claim(database) == ()
    lapse(database)
    (second,) = claim(database)
    assert second.claimed_before
    assert second.key == first.key


def test_young_events_are_left_to_whoever_is_quicker(database: sa.Engine, shop: GitRepository) -> None:
    """The safety net only takes what is overdue."""
    accept(database, push(A))
    assert claim(database, older_than=timedelta(minutes=1)) == ()
    assert len(claim(database)) == 1


def test_started_event_is_never_claimed_again(database: sa.Engine, shop: GitRepository) -> None:
    """Nor can another run take it over."""
    accept(database, push(A))
    (event,) = claim(database)
    inbox.close(database, event, run_id="run-1")
    inbox.close(database, event, run_id="run-2")
    lapse(database)
    assert claim(database) == ()
    (seen,) = inbox.list_events(database)
    assert (seen.state, seen.run_id) == ("started", "run-1")


def test_event_that_could_not_be_started_shows_why_and_is_tried_again(database: sa.Engine, shop: GitRepository) -> None:
    """The reason can be seen meanwhile."""
    accept(database, push(A))
    (event,) = claim(database)
    inbox.let_go(database, event, "Dagster does not answer")
    (seen,) = inbox.list_events(database)
    assert (seen.state, seen.reason) == ("received", "Dagster does not answer")
    lapse(database)
    assert len(claim(database)) == 1


def test_event_can_be_let_go_for_a_short_while(database: sa.Engine, shop: GitRepository) -> None:
    """When it is known that nothing was begun, nobody waits for the claim to lapse."""
    accept(database, push(A))
    (event,) = claim(database)
    inbox.let_go(database, event, "Dagster does not answer", again_after=timedelta(0))
    assert [again.key for again in claim(database)] == [event.key]


ACCEPT_AND_DIE = """
import os, signal, sys
from penstock.events.inbox import Push, accept
from penstock.settings import load_settings
from penstock.state.database import create_engine
database = create_engine(load_settings())
for n in range(1, 1000):
    if accept(database, Push("shop", "refs/heads/main", f"{n:040x}")):
        print(n, flush=True)
"""


def test_what_was_accepted_survives_kill_9(
    database: sa.Engine, shop: GitRepository, env: dict[str, str], tmp_path: Path
) -> None:
    """Every push whose acceptance was told is in the inbox; at most one more, which nobody was told of."""
    process = subprocess.Popen(
        [sys.executable, "-c", ACCEPT_AND_DIE], env={**os.environ, **env}, cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(10)]
    process.send_signal(signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines()]
    process.wait()
    kept = [int(commit, 16) for commit in stored_all(database)]
    assert kept[: len(told)] == told
    assert len(kept) <= len(told) + 1


def stored_all(database: sa.Engine) -> list[str]:
    return [event.commit for event in reversed(inbox.list_events(database, limit=2000))]


def test_events_can_be_listed_by_project(database: sa.Engine, shop: GitRepository, make_repository) -> None:
    """Newest first, and no more than asked for."""
    add_project(database, "other", str(make_repository("other", {"readme": "x"}).root))
    accept(database, push(A))
    accept(database, Push("other", MAIN, B))
    accept(database, push(C, A))
    listed: tuple[EventRecord, ...] = inbox.list_events(database, project="shop", limit=1)
    assert [event.commit for event in listed] == [C]
