"""Environments as they are kept: who saw which version, what the audit says, what cannot be."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.environments import store
from penstock.environments.applying import apply_environments, read_environments, write_environments
from penstock.environments.model import Environment, NamedRules, Rules
from penstock.environments.store import OutdatedError, Wanted
from penstock.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    PenstockError,
    SettingsError,
    SpecError,
)
from penstock.people import groups, users
from penstock.people.audit import list_changes
from penstock.people.users import User
from penstock.pipeline.log import utc_now
from penstock.settings import load_settings
from penstock.state.environment_tables import environments
from penstock.state.tables import releases


def named(name: str, **rules: Any) -> NamedRules:
    return NamedRules.model_validate({"name": name, **rules})


def rules(**given: Any) -> Rules:
    return named("x", **given).rules()


@pytest.fixture
def staging(database: sa.Engine) -> Environment:
    with database.begin() as connection:
        return store.add(connection, named("staging", group="web", env={"COLOUR": "blue"}), "ada")


def test_of_two_who_have_read_the_same_version_the_second_is_refused(database: sa.Engine, staging: Environment):
    """Nothing of the second change is kept."""
    with database.begin() as connection:
        changed = store.change(connection, "staging", rules(description="one"), "ada", version=staging.version)
    assert (changed.version, changed.changed_by) == (2, "ada")
    with pytest.raises(OutdatedError, match="at version 2 by now, changed by ada, not at 1"), database.begin() as again:
        store.change(again, "staging", rules(description="two"), "grace", version=staging.version)
    with database.connect() as connection:
        assert store.get_environment(connection, "staging").rules.description == "one"


def test_the_same_rules_again_are_no_change(database: sa.Engine, staging: Environment):
    with database.begin() as connection:
        assert store.change(connection, "staging", staging.rules, "grace", version=1).version == 1
        assert [change.action for change in list_changes(connection, subject="staging")] == ["environment.add"]


def test_audit_has_what_differs(database: sa.Engine, staging: Environment):
    """Each value before and after, by its path, and who."""
    new = rules(group="web", env={"COLOUR": "red", "SIZE": "1"}, order={"soak": 60})
    with database.begin() as connection:
        store.change(connection, "staging", new, "grace", version=1)
        change = list_changes(connection, subject="staging")[0]
    assert (change.actor, change.action) == ("grace", "environment.edit")
    told = {"env.COLOUR": ["blue", "red"], "env.SIZE": [None, "1"], "order.soak": [0, 60]}
    assert change.detail == {"change": told, "version": 2}


def test_columns_of_the_table_follow_the_rules(database: sa.Engine, staging: Environment):
    """What others ask for in SQL is never out of step."""
    wanted = sa.select(environments.c.type, environments.c.group, environments.c.target)
    with database.begin() as connection:
        assert connection.execute(wanted).one() == ("non-production", "web", None)
        new = rules(production=True, target={"name": "docker"})
        store.change(connection, "staging", new, "ada", version=1)
        assert connection.execute(wanted).one() == ("production", None, "docker")


def test_list_is_filtered(database: sa.Engine, staging: Environment):
    with database.begin() as connection:
        for name, more in (("prod", {}), ("prod-eu", {"target": {"name": "process"}}), ("stage_2", {"group": "web"})):
            store.add(connection, named(name, **more), "ada")

        def names(**wanted: Any) -> list[str]:
            return [one.name for one in store.list_environments(connection, Wanted(**wanted))]

        assert names() == ["prod", "prod-eu", "stage_2", "staging"]
        assert names(group="web") == ["stage_2", "staging"]
        assert names(production=True) == ["prod"]
        assert names(production=False, prefix="prod") == ["prod-eu"]
        assert names(target="process") == ["prod-eu"]
        assert names(prefix="stag_") == []
        assert names(after="prod", limit=2) == ["prod-eu", "stage_2"]


@pytest.mark.parametrize("state", ["live", "pending"])
def test_one_with_a_release_is_not_removed(database: sa.Engine, staging: Environment, state: str):
    """Live or on its way; once it is superseded the rules may go, with a row in the audit."""
    row = {"id": "r1", "project": "shop", "environment": "staging", "service": "web", "number": 3, "commit": "c" * 40}
    row |= {"digest": "d", "graph_hash": "g", "run_id": "x", "configuration": {}, "state": state}
    with database.begin() as connection:
        connection.execute(sa.insert(releases).values(row))
    with (
        pytest.raises(ConflictError, match=f"release 3 of shop/web is {state} there"),
        database.begin() as connection,
    ):
        store.remove(connection, "staging", "ada", version=1)
    with database.begin() as connection:
        connection.execute(sa.update(releases).values(state="superseded"))
        with pytest.raises(OutdatedError):
            store.remove(connection, "staging", "ada", version=7)
        store.remove(connection, "staging", "ada", version=1)
        assert store.find_environment(connection, "staging") is None
        assert list_changes(connection, subject="staging")[0].action == "environment.remove"


def test_order_names_environments_that_are_there_and_never_goes_round(database: sa.Engine, staging: Environment):
    """Nor is one removed that another comes after."""
    with database.begin() as connection:
        store.add(connection, named("production", order={"after": "staging"}), "ada")
    for name, after, words in [
        ("staging", "production", "goes round in a circle"),
        ("staging", "staging", "goes round in a circle"),
        ("staging", "stagin", 'no environment is called "stagin"'),
    ]:
        with pytest.raises(InputError, match=words), database.begin() as connection:
            store.change(connection, name, rules(order={"after": after}), "ada", version=None)
    with pytest.raises(ConflictError, match="production comes after it"), database.begin() as connection:
        store.remove(connection, "staging", "ada", version=None)


def test_hold_is_kept_with_who_and_why_and_counts_as_a_change(database: sa.Engine, staging: Environment):
    """Whoever edits a page that was read before is told."""
    with database.begin() as connection:
        held = store.hold(connection, "staging", "ada", "bad release", version=1)
        assert held.hold
        assert (held.hold.by, held.hold.why, held.version) == ("ada", "bad release", 2)
        with pytest.raises(ConflictError, match="held by ada already"):
            store.hold(connection, "staging", "grace", "")
        with pytest.raises(OutdatedError):
            store.change(connection, "staging", rules(), "grace", version=1)
        assert store.let_go(connection, "staging", "grace").hold is None
        with pytest.raises(ConflictError, match="nobody holds it"):
            store.let_go(connection, "staging", "grace")
        actions = [(one.actor, one.action) for one in list_changes(connection, subject="staging", limit=2)]
    assert actions == [("grace", "environment.release"), ("ada", "environment.hold")]


def test_freeze_is_lifted_by_who_is_on_its_list_and_says_why(database: sa.Engine):
    """By name or by group, while it holds; everybody else is told whom to ask."""
    now = utc_now()
    span = {"begins": f"{now - timedelta(days=2):%Y-%m-%d}", "ends": f"{now + timedelta(days=2):%Y-%m-%d}"}
    over = {"begins": "2020-01-01", "ends": "2020-01-02"}
    freezes = [
        {"name": "audit", "users": ["ada"], "groups": ["ops"], **span},
        {"name": "firm", **span},
        {"name": "past", "users": ["ada"], **over},
    ]
    with database.begin() as connection:
        store.add(connection, named("production", freezes=freezes), "ada")
        users.add_user(connection, User("grace"))
        groups.add_group(connection, "ops", ("grace",))

    def lift(freeze: str, by: str, why: str = "the shop is down") -> None:
        with database.begin() as connection:
            store.lift(connection, "production", freeze, by, why=why)

    for freeze, by, why, error, words in [
        ("audit", "mary", "x", ForbiddenError, "ask ada or the group ops"),
        ("firm", "ada", "x", ForbiddenError, "nobody is on its list"),
        ("past", "ada", "x", ConflictError, "does not hold now"),
        ("audit", "ada", " ", InputError, "a reason is missing"),
        ("audit", "ada", "a\nb", InputError, "no line of text"),
        ("audi", "ada", "x", NotFoundError, 'did you mean "audit"'),
    ]:
        with pytest.raises(error, match=words):
            lift(freeze, by, why)
    with database.connect() as connection:
        assert store.lifted(connection, "production", now) == ()
    lift("audit", "grace")
    with database.connect() as connection:
        (lifted,) = store.lifted(connection, "production", now)
        change = list_changes(connection, subject="production")[0]
        assert store.lifted(connection, "production", lifted.until) == ()
    assert (change.actor, change.action, change.detail["why"]) == ("grace", "environment.lift", "the shop is down")


FILE = """\
environments:
  - name: production
    order: {after: staging, soak: 30m}
    refs: {branches: main, tags: "v*"}
    env: {MODE: 0755}
    approval: {count: 2, groups: release-managers, auto: tests.passed && findings.critical == 0}
    freezes:
      - {name: weekend, weekly: Fri 16:00 - Mon 08:00, zone: Europe/Berlin}
      - {name: year-end, begins: 2026-12-23 18:00:00, ends: 2027-01-04}
  - name: staging
    target: {name: process}
"""


def test_file_is_put_into_force_whole_and_written_as_it_was(database: sa.Engine):
    """In the order that the environments need; the same file again changes nothing; what is written reads the same."""
    wanted = read_environments(FILE.encode(), "environments.yaml")
    with database.begin() as connection:
        first = apply_environments(connection, wanted, "ada")
        again = apply_environments(connection, wanted, "ada")
    assert [(one.environment.name, one.outcome) for one in first] == [("staging", "added"), ("production", "added")]
    assert {one.outcome for one in again} == {"unchanged"}
    text = write_environments(one.environment for one in first)
    assert sorted(read_environments(text.encode(), "again.yaml"), key=lambda one: one.name) == sorted(
        wanted, key=lambda one: one.name
    )
    bad = read_environments(FILE.replace("after: staging", "after: stagin").encode(), "environments.yaml")
    with pytest.raises(InputError, match='did you mean "staging"'), database.begin() as connection:
        apply_environments(connection, [named("extra"), *bad], "ada")
    with database.connect() as connection:
        assert store.find_environment(connection, "extra") is None, "all or none"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("environments: []", "there are no environments"),
        ("environment: []", 'did you mean "environments"'),
        ("environments:\n  - name: Prod", "f.yaml:2: environments.Prod.name: .* use small letters"),
        ("environments:\n  - name: a\n  - name: a", 'f.yaml:3: environments.a: "a" is here twice'),
        ("environments:\n  - name: a\n    oder: {}", 'f.yaml:3: .* did you mean "order"'),
        ("environments:\n  - {name: a, order: {soak: soon}}", '"soon" is no duration'),
        ("environments:\n  - {name: a, env: {PORT: 1}}", '"PORT" is given by Penstock'),
        ("environments:\n  - {name: a, env: {X: 1}, secret_env: {X: y}}", '"X" stands in env and in secret_env'),
        ("environments:\n  - {name: a, target: {name: docker, kubernetes: {}}}", "of another target"),
        ("environments:\n  - {name: a, target: {name: docker, docker: {host: far}}}", "cannot stand here"),
        (
            "environments:\n  - {name: a, target: {name: docker, docker: {host: 'unix:///x', ca_secret: y}}}",
            "certificates are for an engine by tcp",
        ),
        (
            "environments:\n  - {name: a, target: {name: docker, docker: {host: 'tcp://x:1', ca_secret: y}}}",
            "certificate, key and authority go together",
        ),
        ("environments:\n  - {name: a, approval: {auto: 'tests.passed &&'}}", "is no expression"),
        ("environments:\n  - {name: a, approval: {auto: matrix.x}}", '"matrix" is not known'),
        ("environments:\n  - {name: a, approval: {count: 2, users: ada}}", "2 people are needed and 1 may"),
        ("environments:\n  - {name: a, freezes: [{name: x}]}", "once or weekly"),
        ("environments:\n  - {name: a, freezes: [{name: x, begins: 2026-01-01}]}", "once or weekly"),
        ("environments:\n  - {name: a, freezes: [{name: x, weekly: Fri 16}]}", "no part of a week"),
        ("environments:\n  - {name: a, freezes: [{name: x, weekly: Fri 1:00 - Fri 1:00}]}", "begins when it ends"),
        ("environments:\n  - {name: a, freezes: [{name: x, weekly: Fri 24:00 - Sat 1:00}]}", "24:00 is no time"),
        (
            "environments:\n  - {name: a, freezes: [{name: x, zone: Mars/Base, weekly: Fri 1:00 - Sat 1:00}]}",
            '"Mars/Base" is no time zone',
        ),
        (
            "environments:\n  - {name: a, freezes: [{name: x, begins: 2026-02-01, ends: 2026-01-01}]}",
            "ends before it begins",
        ),
        (
            "environments:\n  - {name: a, freezes: [{name: x, begins: 2026-02-01T00:00:00Z, ends: 2026-03-01}]}",
            "a zone of its own",
        ),
    ],
)
def test_file_that_is_wrong_is_one_line_with_the_remedy(text: str, words: str):
    with pytest.raises(SpecError, match=words) as caught:
        read_environments(text.encode(), "f.yaml")
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_name_says_whether_it_is_production_unless_somebody_does():
    assert [named(name).production for name in ("production", "prod", "staging", "pre-prod")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert named("prod", production=False).rules().production is False


def test_names_that_nothing_answers_to_are_said_with_a_guess(database: sa.Engine, staging: Environment):
    with database.connect() as connection:
        with pytest.raises(NotFoundError, match='did you mean "staging"'):
            store.get_environment(connection, "stging")
        with pytest.raises(PenstockError, match="already"), database.begin() as other:
            store.add(other, named("staging"), "ada")


def test_setting_is_one_of_two_words():
    assert load_settings({"PENSTOCK_HOME": "/x"}).environments == "any"
    assert load_settings({"PENSTOCK_HOME": "/x", "PENSTOCK_ENVIRONMENTS": "known"}).environments == "known"
    with pytest.raises(SettingsError) as caught:
        load_settings({"PENSTOCK_HOME": "/x", "PENSTOCK_ENVIRONMENTS": "some"})
    assert str(caught.value) == 'PENSTOCK_ENVIRONMENTS: "some" cannot stand here; write any or known'
