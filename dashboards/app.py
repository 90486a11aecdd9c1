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
        st.Page("screens/overview.py", title="Overview", default=True),
        st.Page("screens/runs.py", title="Runs"),
        st.Page("screens/findings.py", title="Findings"),
        st.Page("screens/diff.py", title="Commit diff"),
        st.Page("screens/components.py", title="Components"),
        st.Page("screens/gates.py", title="Gates"),
        st.Page("screens/approvals.py", title="Approvals"),
        st.Page("screens/deployments.py", title="Deployments"),
        st.Page("screens/environments.py", title="Environments"),
        st.Page("screens/tests.py", title="Tests"),
        st.Page("screens/scanners.py", title="Scanners"),
        st.Page("screens/events.py", title="Events"),
        st.Page("screens/plugins.py", title="Plugins"),
        st.Page("screens/connect.py", title="Connect"),
        st.Page("screens/editor.py", title="Editor"),
        st.Page("screens/sql.py", title="SQL"),
        st.Page("screens/run.py", title="Run", visibility="hidden"),
        st.Page("screens/finding.py", title="Finding", visibility="hidden"),
    ]


page = st.navigation(_pages(), position="top")
st.set_page_config(
    page_title=f"{page.title} · Penstock", page_icon=str(Path(__file__).parent / "drop.svg"), layout="wide"
)
use_style()
with said_plainly():
    page.run()
