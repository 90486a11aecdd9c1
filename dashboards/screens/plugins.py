"""Plugins: what is installed, what can be, its docs, and who uses it; install, upgrade and uninstall."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from dashboards.charts import metric_over_time
from dashboards.connecting import asked, keep_notice, take_notice
from dashboards.markup import Column, Content, facts, join, page_link, table, tag
from dashboards.reading import lake
from dashboards.showing import ago, empty, head, put, run_link, said_plainly, section, span, state, trouble
from penstock.errors import PenstockError
from penstock.warehouse.measured import metrics_of_plugin

KINDS = ("every kind", "scanner", "report", "deployer", "notify", "build", "test", "policy", "other")
INSTALLED = (Column("plugin"), Column("version"), Column("kind"), Column("from"), Column("what it does", "wide"))
OFFERED = (*INSTALLED, Column("licence"))
USES = (
    Column("last"),
    Column("project"),
    Column("step"),
    Column("version"),
    Column("runs", "number"),
    Column("failures", "number"),
    Column("median", "number"),
    Column("when"),
    Column("run"),
)
# A picture would be fetched from its author's server by whoever reads the page.
_PICTURE = re.compile(r"!\[([^\]]*)\](\([^)]*\)|\[[^\]]*\])")


def _plugin_link(name: str, version: str | None = None) -> Content:
    return page_link("plugins", name, plugin=name, version=version)


def _installed(plugins: Sequence[Mapping[str, Any]]) -> None:
    section("Installed", "what steps may use: type: plugin, plugin: name@version")
    if not plugins:
        empty("No plugin is installed. Choose one below, or here:", "penstock plugin install code-size")
        return
    rows = ((_plugin_link(one["name"], one["version"]), *_words(one)) for one in plugins)
    put(table(INSTALLED, rows, caption="Installed plugins"))


def _words(one: Mapping[str, Any]) -> tuple[Content, ...]:
    version = one["version"] if one.get("state", "installed") == "installed" else f"{one['version']} ({one['state']})"
    return version, one["kind"], one["source"], one["summary"]


def _offered(installed: Sequence[Mapping[str, Any]]) -> None:
    section("Available", "in the registries that this platform knows")
    with st.container(horizontal=True):
        text = st.text_input("Search", key="search", placeholder="licence, size, notify …", width=360)
        kind = st.selectbox("Kind", KINDS, key="kind", width=200)
    found = asked("GET", "plugins", "offers", q=text.strip(), kind=None if kind == KINDS[0] else kind)
    for one in found["troubles"]:
        st.warning(f"Registry {one['registry']}: {one['what']}")
    if not found["plugins"]:
        empty("No plugin fits." if text or kind != KINDS[0] else "No registry offers a plugin.")
        return
    known = {one["name"] for one in installed}
    rows = ((_plugin_link(one["name"]), *_words(one), one["licence"]) for one in found["plugins"])
    put(table(OFFERED, rows, caption="Available plugins"))
    st.caption(f"{len([one for one in found['plugins'] if one['name'] in known])} of them are installed.")


def _one(name: str, version: str | None) -> None:
    section(name)
    if notice := take_notice("plugin"):
        st.success(notice)
    try:
        detail = asked("GET", "plugins", "offers", name, version=version)
    except PenstockError as error:
        trouble(str(error))
        return
    offer = detail["offer"]
    put(facts(_facts(detail)))
    _buttons(detail)
    _uses(name)
    _metrics(name)
    _docs(detail)
    if others := [one for one in detail["versions"] if one["version"] != offer["version"]]:
        links = (
            join([_plugin_link(name, one["version"]), f" {one['version']}", " yanked" if one["yanked"] else ""])
            for one in others
        )
        put(tag("p", "Other versions: ", join(links, ", ")))


def _facts(detail: Mapping[str, Any]) -> Mapping[str, Content]:
    offer, manifest = detail["offer"], detail["manifest"]
    secrets = ", ".join(f"{one['name']} ({one['why']})" for one in manifest.get("secrets", ()))
    signed = detail["signed_by"] or (f"no: {detail['unsigned']}" if detail["unsigned"] else "delivered by the platform")
    return {
        "what it does": offer["summary"],
        "version": offer["version"] + (f", yanked: {offer['yanked']}" if offer["yanked"] else ""),
        "installed": ", ".join(detail["installed"]) or "no",
        "from": offer["source"],
        "signed by": signed,
        "digest": offer["digest"],
        "licence": offer["licence"],
        "maintainer": offer["maintainer"],
        "secrets it asks for": secrets or "none",
        "hosts it may reach": ", ".join(manifest.get("network", ())) or "none",
        "reads what others told": ", ".join(manifest.get("reads", ())) or "no",
        "environments": ", ".join(manifest.get("environments", ())) or "all",
    }


def _buttons(detail: Mapping[str, Any]) -> None:
    offer, installed = detail["offer"], detail["installed"]
    with st.container(horizontal=True):
        if offer["version"] not in installed and not offer["yanked"]:
            word = "Upgrade …" if installed else "Install …"
            if st.button(word, type="primary", icon=":material/download:"):
                _install(detail)
        if offer["version"] in installed and st.button("Uninstall …", icon=":material/delete:"):
            _uninstall(offer["name"], offer["version"])


@st.dialog("Install this plugin?")
def _install(detail: Mapping[str, Any]) -> None:
    offer = detail["offer"]
    st.write(f"{offer['name']} {offer['version']} from {offer['source']}")
    if detail["changes"]:
        st.write(f"Against version {detail['installed'][0]}:")
        put(tag("ul", *(_change(one) for one in detail["changes"])))
    unsigned = False
    if detail["unsigned"]:
        unsigned = st.checkbox(f"Take it although nobody vouches for it ({detail['unsigned']})")
    if st.button("Install it", type="primary", key="install"):
        body = {"name": offer["name"], "version": offer["version"], "registry": offer["source"], "unsigned": unsigned}
        _send("POST", "plugins", body=body, told=f"{offer['name']} {offer['version']} is installed.")


def _change(one: Mapping[str, Any]) -> Content:
    tone = "ps-state warn" if one["widens"] else "ps-state"
    return tag("li", tag("span", one["part"], class_=tone), f" {one['what']}")


@st.dialog("Uninstall this version?")
def _uninstall(name: str, version: str) -> None:
    users = sorted({use["project"] for use in _users(name) if use["version"] == version})
    st.write(f"Steps that name {name}@{version} fail from now on; what it told stays.")
    if users:
        st.warning(f"It was used by {', '.join(users)}.")
    if st.button("Uninstall it", type="primary", key="uninstall"):
        _send("DELETE", "plugins", name, version, told=f"{name} {version} is not installed any more.")


def _send(method: str, *path: str, told: str, body: Mapping[str, Any] | None = None) -> None:
    try:
        with st.spinner("One moment …"):
            asked(method, *path, body=body)
    except PenstockError as error:
        trouble(str(error))
        return
    keep_notice("plugin", told)
    st.rerun()


def _users(name: str) -> Sequence[Mapping[str, Any]]:
    """The steps that run it; none for one that is not installed and never ran."""
    try:
        found: Sequence[Mapping[str, Any]] = asked("GET", "plugins", name, "uses")
    except PenstockError:
        return ()
    return found


def _uses(name: str) -> None:
    if uses := _users(name):
        section("Used by")
        put(table(USES, map(_use_row, uses), caption="Steps that run it"))


def _metrics(name: str) -> None:
    measured = lake(metrics_of_plugin, plugin=name)
    if measured.empty:
        return
    section("What it measured", "in the last 90 days; values with labels are summed")
    for (metric, unit), rows in measured.groupby(["name", measured["unit"].fillna("")]):
        title = f"{metric} ({unit})" if unit else str(metric)
        st.altair_chart(metric_over_time(rows, title), alt=f"{title} over time")


def _use_row(use: Mapping[str, Any]) -> tuple[Content, ...]:
    return (
        state(use["last_state"]),
        page_link("runs", use["project"], project=use["project"]),
        use["step"],
        use["version"],
        use["runs"],
        use["failures"] or None,
        span(use["median_s"]) if use["median_s"] is not None else None,
        ago(datetime.fromisoformat(use["last_at"])),
        run_link(use["last_run"]),
    )


def _docs(detail: Mapping[str, Any]) -> None:
    section("Documentation", "as its author wrote it; pictures are left out")
    pages = {"README": detail["readme"], **detail["docs"]}
    for tab, text in zip(st.tabs([name.removesuffix(".md") for name in pages]), pages.values(), strict=True):
        with tab:
            st.markdown(_PICTURE.sub(r"\1", text), unsafe_allow_html=False)


head("Plugins")
with said_plainly():
    plugins = asked("GET", "plugins")
    if chosen := st.query_params.get("plugin"):
        put(tag("p", page_link("plugins", "← all plugins")))
        _one(chosen, st.query_params.get("version"))
    else:
        _installed(plugins)
        _offered(plugins)
