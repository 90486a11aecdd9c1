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

_ICON = str(Path(__file__).parent / "drop.svg")  # a name of Streamlit's icons here is fetched from another's server


def _pages() -> list["st.Page"]:
    return [
        st.Page("pages/overview.py", title="Overview", default=True),
        st.Page("pages/runs.py", title="Runs"),
        st.Page("pages/findings.py", title="Findings"),
        st.Page("pages/diff.py", title="Commit diff"),
        st.Page("pages/gates.py", title="Gates"),
        st.Page("pages/deployments.py", title="Deployments"),
        st.Page("pages/tests.py", title="Tests"),
        st.Page("pages/scanners.py", title="Scanners"),
        st.Page("pages/events.py", title="Events"),
        st.Page("pages/connect.py", title="Connect"),
        st.Page("pages/editor.py", title="Editor"),
        st.Page("pages/sql.py", title="SQL"),
        st.Page("pages/run.py", title="Run", visibility="hidden"),
        st.Page("pages/finding.py", title="Finding", visibility="hidden"),
    ]


page = st.navigation(_pages(), position="top")
st.set_page_config(
    page_title=f"{page.title} · Penstock", page_icon=str(Path(__file__).parent / "drop.svg"), layout="wide"
)
use_style()
with said_plainly():
    page.run()
