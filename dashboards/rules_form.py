"""The rules of an environment as a form: drawn from what was read, read back into what the API takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st
import yaml

from penstock.environments.model import Rules
from penstock.errors import InputError
from penstock.pipeline.document import read_document

_PATTERNS = "Patterns, one per line: * and ? stay within a part, ** crosses /, a leading ! takes back."
_REST = ("target", "freezes")
_CONDITION = 'tests.passed && findings.critical == 0 && env("staging").healthy_s > 3600'
_PLACEHOLDER = """\
target: {name: process}
freezes:
  - {name: weekend, weekly: Fri 16:00 – Mon 08:00, zone: Europe/Berlin, users: [ada]}"""


def spoken_soak(seconds: int) -> str:
    """Such as 1h30m, as the field takes it."""
    hours, rest = divmod(seconds, 3600)
    parts = ((hours, "h"), (rest // 60, "m"), (rest % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def rules_fields(rules: Mapping[str, Any], others: Sequence[str], *, key: str) -> dict[str, Any]:
    """
    The fields, within a form that is open. Returns: what stands in them, still as texts.

    rules: as the API tells them. others: environments that it may come after. key: of this form and no other.
    """
    return {
        **_about(rules, key),
        **_order(rules["order"], others, key),
        **_sources(rules, key),
        **_variables(rules, key),
        **_people(rules["approval"] or {}, key),
        "rest": st.text_area(
            "Target and freezes, as YAML",
            _written({name: rules[name] for name in _REST}),
            key=f"{key}-rest",
            placeholder=_PLACEHOLDER,
            height=150,
        ),
    }


def _about(rules: Mapping[str, Any], key: str) -> dict[str, Any]:
    description = st.text_input("Description", rules["description"], key=f"{key}-description")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        production = st.toggle("Production", rules["production"], key=f"{key}-production")
        group = st.text_input("Group", rules["group"] or "", key=f"{key}-group", width=200)
    return {"description": description, "production": production, "group": group}


def _order(order: Mapping[str, Any], others: Sequence[str], key: str) -> dict[str, Any]:
    needs = ("all", "any")
    with st.container(horizontal=True):
        kept = [name for name in order["after"] if name in others]
        after = st.multiselect("After", others, kept, key=f"{key}-after", placeholder="none", width=320)
        need = st.selectbox("Of them", needs, needs.index(order["need"]), key=f"{key}-need", width=110)
        soak = st.text_input("Well there for", spoken_soak(order["soak"]), key=f"{key}-soak", width=150)
    return {"after": after, "need": need, "soak": soak}


def _sources(rules: Mapping[str, Any], key: str) -> dict[str, Any]:
    labels = {"branches": "Branches", "tags": "Tags", "pull_requests": "Pull requests to"}
    with st.container(horizontal=True):
        found = {
            name: _lines(label, rules["refs"][name], key=f"{key}-{name}", help=_PATTERNS)
            for name, label in labels.items()
        }
        found["projects"] = _lines("Projects", rules["projects"], key=f"{key}-projects", help=_PATTERNS)
    return found


def _variables(rules: Mapping[str, Any], key: str) -> dict[str, Any]:
    labels = {
        "env": ("Variables", "NAME=VALUE, one per line; no secrets."),
        "secret_env": ("Variables that hold a secret", "NAME=SECRET, one per line: its name in the vault, no value."),
    }
    with st.container(horizontal=True):
        return {
            name: _lines(label, [f"{one}={of}" for one, of in rules[name].items()], key=f"{key}-{name}", help=told)
            for name, (label, told) in labels.items()
        }


def _people(approval: Mapping[str, Any], key: str) -> dict[str, Any]:
    names = [*approval.get("users", ()), *(f"group:{one}" for one in approval.get("groups", ()))]
    with st.container(horizontal=True):
        count = st.number_input(
            "People who must approve", 0, 20, approval.get("count", 0), key=f"{key}-count", width=200
        )
        people = st.text_input("Who", ", ".join(names), key=f"{key}-people", placeholder="ada, group:release-managers")
    author = approval.get("not_author", False)
    return {
        "count": count,
        "people": people,
        "not_author": st.checkbox("Not who wrote the commit or set the run off", author, key=f"{key}-author"),
        "auto": st.text_input(
            "Nobody is asked where", approval.get("auto") or "", key=f"{key}-auto", placeholder=_CONDITION
        ),
    }


def rules_of(found: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """
    What stands in the fields, as the API takes it.

    before: the rules as they were read; what no field shows stays. Raises: InputError for what cannot be read.
    """
    rest = _read(found["rest"])
    return {
        **before,
        **{name: found[name] for name in ("description", "production")},
        "group": found["group"].strip() or None,
        "order": {"after": found["after"], "need": found["need"], "soak": found["soak"].strip() or 0},
        "refs": {name: _listed(found[name]) for name in ("branches", "tags", "pull_requests")},
        "projects": _listed(found["projects"]),
        "env": _pairs(found["env"], "Variables"),
        "secret_env": _pairs(found["secret_env"], "Variables that hold a secret"),
        "approval": _approval(found, before["approval"] or {}) if found["count"] else None,
        "target": rest.get("target"),
        "freezes": rest.get("freezes") or [],
    }


def no_rules() -> dict[str, Any]:
    """Of an environment of which nothing is said yet."""
    return Rules().model_dump(mode="json")


def _lines(label: str, values: Sequence[str], *, key: str, help: str) -> str:
    return str(st.text_area(label, "\n".join(values), key=key, help=help, height=90, width="stretch"))


def _listed(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pairs(text: str, where: str) -> dict[str, str]:
    pairs = dict[str, str]()
    for line in _listed(text):
        name, equals, value = line.partition("=")
        if not equals:
            raise InputError(f'"{line[:60]}" has no value', where=where, remedy="write NAME=VALUE, one per line")
        pairs[name.strip()] = value.strip()
    return pairs


def _approval(found: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    people = [one.strip() for one in found["people"].split(",") if one.strip()]
    return {
        **before,
        "count": found["count"],
        "users": [one for one in people if not one.startswith("group:")],
        "groups": [one.removeprefix("group:") for one in people if one.startswith("group:")],
        "not_author": found["not_author"],
        "auto": found["auto"].strip() or None,
    }


def _written(values: Mapping[str, Any]) -> str:
    shown = {name: _bare(value) for name, value in values.items() if value}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).strip() if shown else ""


def _bare(value: Any) -> Any:
    """Without what is empty."""
    if isinstance(value, Mapping):
        return {name: _bare(one) for name, one in value.items() if one not in (None, [], {})}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _read(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    values = read_document(text.encode(), "target and freezes").values()
    if unknown := sorted(values.keys() - set(_REST)):
        remedy = "write target and freezes; the rest has fields of its own"
        raise InputError(f'"{unknown[0][:60]}" does not stand here', where="target and freezes", remedy=remedy)
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """As JSON has it: YAML reads some times as times."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
