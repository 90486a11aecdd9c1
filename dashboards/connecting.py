"""What the pages for connecting ask Penstock's API, and how they tell what came of it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import streamlit as st

from dashboards.acting import ask
from dashboards.markup import Column, facts, join, table, tag
from dashboards.showing import put, section

_CHECKS = (Column("what"), Column("how it is"), Column("told", "wide"))
_TONES = {"ok": ("✔", "good"), "missing": ("–", "warn"), "wrong": ("✘", "bad")}


def asked(method: str, *path: str, body: Mapping[str, Any] | None = None, **query: str | None) -> Any:
    """What the API answers below /api/v1, as plain values. Raises: PenstockError."""
    known = {name: value for name, value in query.items() if value is not None}
    address = "/".join(("/api/v1", *(quote(part, safe="") for part in path)))
    response = ask(method, address, json=body, params=known)
    return response.json() if response.content else None


def show_checks(checks: list[Mapping[str, str]]) -> None:
    """One row for each thing that was tried."""
    rows = ((check["name"], _verdict(check["verdict"]), check["told"]) for check in checks)
    put(table(_CHECKS, rows, caption="What was tried"))


def _verdict(verdict: str) -> Any:
    sign, tone = _TONES[verdict]
    return tag("span", f"{sign} {verdict}", class_=f"ps-state {tone}")


def show_outcome(outcome: Mapping[str, Any]) -> None:
    """What is set up, and what is left to do by hand; a hook's secret among it is shown this once."""
    put(*(tag("p", f"✔ {line}") for line in outcome["done"]))
    if outcome["left"]:
        section("Left to do", "by hand; a secret is not shown again")
        put(tag("div", tag("pre", tag("code", "\n".join(outcome["left"]))), class_="ps-hint"))


def show_connection(connection: Mapping[str, Any]) -> None:
    """How a repository is reached."""
    project = connection["project"]
    hook = connection["forge_hook"] or (connection["hook"] and "set by hand")
    put(
        facts(
            {
                "repository": project["url"],
                "default branch": project["default_branch"],
                "forge": connection["forge"],
                "API": connection["api_url"],
                "login": "in the vault" if connection["has_login"] else "none",
                "token": "in the vault"
                if connection["has_token"]
                else join(["the login's"])
                if connection["has_login"]
                else "none",
                "hook": hook or "none",
                "answers": "the forge is told how runs stand" if connection["answers"] else "none",
                "polled": "every 30 s" if project["polled"] else "no",
            }
        )
    )


def keep_notice(key: str, value: Any) -> None:
    """For the page as it is drawn next; once."""
    st.session_state[f"notice-{key}"] = value


def take_notice(key: str) -> Any:
    """What was kept, if anything; then it is gone."""
    return st.session_state.pop(f"notice-{key}", None)
