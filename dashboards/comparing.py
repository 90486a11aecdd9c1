"""In what two releases of a service differ: commits, configuration, findings, components."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboards.markup import Column, Content, page_link, table, tag, tiles
from dashboards.reading import database, lake, settings
from dashboards.showing import commit, known, put, section, severity
from dashboards.tables import shortened
from penstock.deploy.looking import MOST_COMMITS, commits_between
from penstock.deploy.operations import difference
from penstock.deploy.releases import Release
from penstock.warehouse import between

SHOWN = 50
CONFIGURATION = (Column("field", "name"), Column("former", "wide"), Column("latter", "wide"))
FINDINGS = (
    *(Column("change"), Column("severity"), Column("rule"), Column("message", "wide"), Column("where"), Column("tool")),
)
COMPONENTS = (Column("component", "wide"), Column("ecosystem"), Column("former"), Column("latter"), Column("in"))


@st.cache_data(ttl=60, show_spinner=False, max_entries=200)
def _commits(project: str, former: str, latter: str) -> tuple[str, ...] | None:
    return commits_between(database(), settings(), project, former, latter)


def choose_two(history: Sequence[Release]) -> tuple[Release, Release] | None:
    """
    Two of a service's releases, from the address or as they are chosen: first what is live and what was before it.

    history: newest first. Returns: None where there are not two.
    """
    if len(history) < 2:
        return None
    numbers = {str(one.number): one for one in history}
    live = next((one for one in history if one.state == "live"), history[0])
    before = next((one for one in history if one.id == live.previous), None)
    rest = [name for name, one in numbers.items() if one is not live]
    with st.container(horizontal=True):
        left = _choice("Former release", "former", list(numbers), str(before.number) if before else rest[0])
        right = _choice("Latter release", "latter", list(numbers), str(live.number))
    return numbers[left], numbers[right]


def _choice(label: str, key: str, numbers: list[str], default: str) -> str:
    chosen = st.selectbox(
        label,
        numbers,
        index=numbers.index(default),
        key=key,
        bind="query-params",  # it would stand there as format_func writes it
        width=160,
    )
    return chosen or default


def show_difference(former: Release, latter: Release) -> None:
    """From the former to the latter."""
    if former.id == latter.id:
        put(tag("p", "These are one and the same release; choose two.", class_="ps-muted"))
        return
    of = {"project": latter.service.project, "former": former.commit, "latter": latter.commit}
    findings, components = lake(between.findings_between, **of), lake(between.components_between, **of)
    scanned = not lake(between.scanners_of_both, **of).empty
    put(tiles(_figures(former, latter, findings, scanned=scanned)))
    _show_commits("Commits that it adds", former, latter)
    _show_commits("Commits that it takes out", latter, former)
    _show_configuration(former, latter)
    _show_findings(findings, latter)
    _show_components(components)


def _figures(
    former: Release, latter: Release, findings: pd.DataFrame, *, scanned: bool
) -> list[tuple[str, Content, str]]:
    counts = {
        name: 0 if findings.empty else int((findings["change"] == name).sum()) for name in ("introduced", "fixed")
    }
    tones = {"introduced": "bad", "fixed": "good"}
    told: list[tuple[str, Content, str]] = [
        ("commits added", _count(former, latter), ""),
        ("commits taken out", _count(latter, former), ""),
    ]
    return told + [
        (f"findings {name}", number if scanned else "not known", tones[name] if number else "")
        for name, number in counts.items()
    ]


def _count(former: Release, latter: Release) -> str:
    found = _commits(latter.service.project, former.commit, latter.commit)
    return "not known" if found is None else f"{len(found)}{' or more' if len(found) == MOST_COMMITS else ''}"


def _show_commits(title: str, former: Release, latter: Release) -> None:
    found = _commits(latter.service.project, former.commit, latter.commit)
    if found:
        section(title, str(len(found)) if len(found) <= SHOWN else f"the newest {SHOWN} of {_count(former, latter)}")
        lines = (line.partition(" ") for line in found[:SHOWN])
        put(tag("ul", *(tag("li", commit(digits), " ", shortened(title)) for digits, _, title in lines)))


def _show_configuration(former: Release, latter: Release) -> None:
    found = difference(former, latter)
    if found:
        section("What is recorded of them", "secrets by their names")
        rows = [
            (name, *(tag("span", shortened(each, 100), title=each) for each in values))
            for name, values in found.items()
        ]
        put(table(CONFIGURATION, rows, caption="Fields in which the two releases differ"))


def _finding_row(row: "pd.Series[object]", project: str) -> tuple[Content, ...]:
    named = {"project": project, "branch": known(row["branch"]), "fingerprint": str(row["fingerprint"])}
    place, line = known(row["path"]), known(row["line"])
    return (
        row["change"],
        severity(known(row["severity"])),
        page_link("finding", row["rule_id"], **named),
        shortened(known(row["message"]) or ""),
        f"{place}:{int(line)}" if place and line is not None else place,
        row["tool"],
    )


def _show_findings(found: pd.DataFrame, latter: Release) -> None:
    if not found.empty:
        section("Findings", f"the worst {SHOWN} of each" if len(found) > SHOWN else None)
        worst = found.groupby("change", sort=False).head(SHOWN)
        rows = (_finding_row(row, latter.service.project) for _, row in worst.iterrows())
        put(table(FINDINGS, rows, caption="Findings that only one of the two has", brief=True))


def _show_components(found: pd.DataFrame) -> None:
    if not found.empty:
        section("Components", f"{SHOWN} of {len(found)}" if len(found) > SHOWN else str(len(found)))
        put(table(COMPONENTS, map(_component_row, _records(found)), caption="Components that the two have not alike"))


def _records(found: pd.DataFrame) -> list["pd.Series[object]"]:
    return [row for _, row in found.head(SHOWN).iterrows()]


def _component_row(row: "pd.Series[object]") -> tuple[Content, ...]:
    name = "/".join(str(part) for part in (known(row["namespace"]), row["name"]) if part)
    return name, row["ecosystem"], known(row["former"]) or "–", known(row["latter"]) or "removed", row["source"]
