"""Any question to the warehouse, in DuckDB's SQL: reading tables and nothing else."""

import pandas as pd
import streamlit as st

from dashboards.markup import tag
from dashboards.reading import lake, settings
from dashboards.showing import empty, head, put, said_plainly, section
from penstock.warehouse import views
from penstock.warehouse.home import warehouse_location
from penstock.warehouse.sql import ROW_LIMIT, TIME_LIMIT, ask

EXAMPLES = {
    "Which tables are there?": "SELECT table_name, table_comment\nFROM information_schema.tables\nORDER BY table_name",
    "What is open, by project and severity?": (
        "SELECT project, severity, count(*) AS open\n"
        "FROM finding_history\n"
        "WHERE state = 'open' AND branch = 'main'\n"
        "GROUP BY ALL\n"
        "ORDER BY project, array_position(['critical', 'high', 'medium', 'low', 'info'], severity)"
    ),
    "Which critical weaknesses run in production?": (
        "SELECT releases.project, releases.service, releases.number, findings.rule_id, findings.path, findings.line\n"
        "FROM releases\n"
        "JOIN findings USING (project, commit)\n"
        "WHERE releases.state = 'live' AND findings.severity IN ('critical', 'high')\n"
        "    AND NOT coalesce(findings.suppressed, false)\n"
        "ORDER BY ALL"
    ),
    "How long do findings stay open?": (
        "SELECT severity, count(*) AS fixed, median(date_diff('hour', introduced_at, fixed_at)) / 24 AS median_days\n"
        "FROM finding_history\n"
        "WHERE state = 'fixed' AND NOT baseline\n"
        "GROUP BY severity"
    ),
    "Which tests fail most?": (
        "SELECT project, suite, name, count(*) FILTER (state = 'failed') AS failures, count(*) AS runs\n"
        "FROM test_results\n"
        "GROUP BY ALL HAVING failures > 0\n"
        "ORDER BY failures DESC"
    ),
    "Which steps take longest?": (
        "SELECT project, step, count(*) AS runs, median(seconds) AS median_s, max(seconds) AS max_s\n"
        "FROM steps\n"
        "WHERE reused_from IS NULL\n"
        "GROUP BY ALL\n"
        "ORDER BY median_s DESC"
    ),
    "How often do runs fail, week by week?": (
        "SELECT date_trunc('week', queued_at)::DATE AS week, project, count(*) AS runs,\n"
        "    round(100 * avg((state <> 'succeeded')::INT)) AS failed_percent\n"
        "FROM runs\n"
        "GROUP BY ALL\n"
        "ORDER BY week DESC, project"
    ),
}


def _use_example() -> None:
    if chosen := st.session_state.get("example"):
        st.session_state["q"] = EXAMPLES[chosen]


def _tables() -> None:
    columns = lake(views.table_columns)
    with st.expander("Tables and their columns"):
        for (name, grain), of_table in columns.groupby(["table_name", "grain"], dropna=False):
            listed = ", ".join(f"{row.column_name} {row.data_type.lower()}" for row in of_table.itertuples())
            put(tag("p", tag("strong", name), " ", grain if isinstance(grain, str) else ""))
            put(tag("p", listed, class_="ps-muted"))


def _question() -> str | None:
    st.selectbox(
        "Examples",
        list(EXAMPLES),
        index=None,
        key="example",
        placeholder="choose a question …",
        on_change=_use_example,
        width=420,
    )
    if "q" not in st.session_state and "q" not in st.query_params:
        st.session_state["q"] = next(iter(EXAMPLES.values()))
    query = st.text_area("SQL", key="q", bind="query-params", height=190)
    asked = st.button("Run", type="primary", shortcut="Ctrl+Enter")
    return query if asked and query else None


def _answer(query: str) -> None:
    with st.spinner("Asking …"):
        found = ask(warehouse_location(settings()), query)
    frame = pd.DataFrame(found.rows, columns=_unique(found.columns))
    more = f"the first {len(frame)} rows; `penstock sql --limit 0` prints all" if found.is_cut else f"{len(frame)} rows"
    section("Answer", more)
    st.dataframe(frame, hide_index=True, height="auto")
    st.download_button("CSV", frame.to_csv(index=False), "answer.csv", "text/csv", on_click="ignore")


def _unique(names: tuple[str, ...]) -> list[str]:
    """Column names as a data frame wants them: a second `n` is `n_2`."""
    seen: dict[str, int] = {}
    made = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return made


def _show() -> None:
    if lake(views.table_columns).empty:
        empty("There is no warehouse yet: it is made with the first run.", "penstock run")
        return
    if query := _question():
        _answer(query)
    _tables()
    st.caption(f"Reading only, at most {ROW_LIMIT} rows and {TIME_LIMIT.total_seconds():.0f} s; times are UTC")


head("SQL")
with said_plainly():
    _show()
