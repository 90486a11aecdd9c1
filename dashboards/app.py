"""
The dashboards: `streamlit run dashboards/app.py`, with the PENSTOCK_HOME of a Penstock.

One file per page; lists lead to the pages `run` and `finding`, which the menu does not show.
"""

import sys
from pathlib import Path

import streamlit as st

# Streamlit puts this folder on the path, not the checkout in which it lies.
if (_root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.append(_root)

from dashboards.showing import said_plainly, use_style


def _pages() -> list["st.Page"]:
    return [
        st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True),
        st.Page("pages/runs.py", title="Runs", icon=":material/play_circle:"),
        st.Page("pages/findings.py", title="Findings", icon=":material/bug_report:"),
        st.Page("pages/deployments.py", title="Deployments", icon=":material/rocket_launch:"),
        st.Page("pages/sql.py", title="SQL", icon=":material/database:"),
        st.Page("pages/run.py", title="Run", visibility="hidden"),
        st.Page("pages/finding.py", title="Finding", visibility="hidden"),
    ]


page = st.navigation(_pages(), position="top")
st.set_page_config(page_title=f"{page.title} · Penstock", page_icon=":material/water_drop:", layout="wide")
use_style()
with said_plainly():
    page.run()
