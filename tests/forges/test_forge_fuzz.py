"""Whatever arrives, the answer is an event, a reason or one clear rejection; never another exception."""

from __future__ import annotations

import json
from typing import Any

import forge_payloads as made
import msgspec
import pytest
from forge_payloads import as_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import AccessError, EventError, SettingsError
from penstock.forges.event import GitEvent, Parsed, event_key
from penstock.forges.registry import FORGES
from penstock.forges.rules import why_not_run
from penstock.forges.verify import Trust

SEEDS: dict[str, list[Any]] = {
    "github": [made.github_push(), made.github_pull_request(), made.github_release()],
    "gitlab": [made.gitlab_push(), made.gitlab_merge_request(), made.gitlab_release()],
    "gitea": [made.gitea_push(), made.gitea_pull_request(), made.gitea_created(), made.gitea_release()],
    "forgejo": [made.gitea_push(), made.gitea_pull_request()],
    "bitbucket-cloud": [made.cloud_push(), made.cloud_pull_request()],
    "bitbucket-server": [made.server_push(), made.server_pull_request(), made.addon_push()],
    "azure-devops": [made.azure_push(), made.azure_pull_request()],
    "aws-codecommit": [
        made.codecommit_trigger(),
        made.codecommit_reference(),
        made.codecommit_pull_request(),
        made.sns_envelope(made.codecommit_trigger()),
    ],
}
EVENTS = [
    None,
    "push",
    "create",
    "delete",
    "pull_request",
    "release",
    "repo:push",
    "pullrequest:created",
    "repo:refs_changed",
    "pr:opened",
    "git.push",
    "ping",
    "\x00",
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["0" * 40, "a" * 40, "refs/heads/x", "refs/tags/x", "\ud800", "../..", "-x", "{}", "[]"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        inner = [path for key, member in value.items() for path in paths(member, (*prefix, key))]
    elif isinstance(value, list):
        inner = [path for key, member in enumerate(value) for path in paths(member, (*prefix, key))]
    else:
        inner = []
    return [prefix, *inner]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


@st.composite
def altered(draw: st.DrawFn, forge: str) -> bytes:
    payload = draw(st.sampled_from(SEEDS[forge]))
    for _ in range(draw(st.integers(1, 3))):
        payload = put(payload, draw(st.sampled_from(paths(payload))), draw(values))
    return json.dumps(payload).encode()


def understood(forge: str, body: bytes, event: str | None) -> tuple[Parsed, ...]:
    try:
        told = FORGES[forge].parse_all(body, {}, event)
    except EventError:
        return ()
    assert told
    return told


def check(forge: str, body: bytes, event: str | None) -> None:
    for each in understood(forge, body, event):
        # What was understood can be stored, keyed and judged.
        assert msgspec.json.encode(each)
        if isinstance(each, GitEvent):
            assert event_key(each)
            assert each.ref.startswith("refs/")
            why_not_run(each)


@pytest.mark.parametrize("forge", list(FORGES))
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_altered_payloads_are_understood_or_refused(forge, data):
    """Any member of a good payload may be anything."""
    check(forge, data.draw(altered(forge)), data.draw(st.sampled_from(EVENTS)))


@pytest.mark.parametrize("forge", list(FORGES))
@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=80), event=st.sampled_from(EVENTS))
def test_bytes_are_understood_or_refused(forge, body, event):
    """Any bytes under any event name."""
    check(forge, body, event)


@pytest.mark.parametrize("forge", list(FORGES))
@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 400), event=st.sampled_from(EVENTS))
def test_cut_payloads_are_understood_or_refused(forge, cut, event):
    """A connection that broke off."""
    check(forge, as_bytes(SEEDS[forge][0])[:cut], event)


@pytest.mark.parametrize("forge", list(FORGES))
@settings(max_examples=100, deadline=None)
@given(
    body=st.binary(max_size=60),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "X-Hub-Signature-256",
                "X-Hub-Signature",
                "X-Gitea-Signature",
                "X-Forgejo-Signature",
                "X-Gitlab-Token",
                "webhook-id",
                "webhook-timestamp",
                "webhook-signature",
                "Authorization",
            ]
        ),
        st.text(max_size=80),
    ),
)
def test_no_stranger_is_believed(forge, body, headers):
    """Any headers over any body: refused, and with nothing but AccessError."""
    for secret in ("s" * 20, "whsec_" + "c2VjcmV0" * 4):
        with pytest.raises((AccessError, SettingsError)):
            FORGES[forge].verify(body, headers, Trust(secrets=(secret,)), 1_750_000_000.0)
