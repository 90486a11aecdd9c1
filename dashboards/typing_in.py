"""Text of many lines that is told while somebody types it; Streamlit's own field waits for Ctrl+Enter."""

from typing import Any

import streamlit as st

PAUSE_MS = 300

_HTML = '<textarea spellcheck="false" autocapitalize="off" autocomplete="off" wrap="off"></textarea>'
_CSS = """
textarea { box-sizing: border-box; width: 100%; height: 24rem; resize: vertical; padding: 0.7rem 0.9rem;
  font: 0.86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; tab-size: 2;
  color: var(--st-text-color); background: var(--st-secondary-background-color);
  border: 1px solid var(--st-border-color); border-radius: 0.4rem; }
textarea:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
"""
_JS = """
export default function ({ parentElement, data, setStateValue }) {
  const field = parentElement.querySelector("textarea");
  if (field.dataset.ready) return;
  field.dataset.ready = "1";
  field.value = data.text;
  field.setAttribute("aria-label", data.label);
  let waiting = 0;
  let told = data.text;
  const tell = () => {
    clearTimeout(waiting);
    if (field.value !== told) setStateValue("text", told = field.value);
  };
  field.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(tell, data.pause_ms); });
  field.addEventListener("change", tell);
}
"""


@st.cache_resource(show_spinner=False)
def _field() -> Any:
    return st.components.v2.component("penstock_text", html=_HTML, css=_CSS, js=_JS)


def text_field(label: str, text: str, *, key: str) -> str:
    """What stands in the field now. text: what stood there first; another `key` is another field."""
    told = _field()(
        data={"text": text, "label": label, "pause_ms": PAUSE_MS},
        default={"text": text},
        key=key,
        on_text_change=lambda: None,
    )
    return str(told.text)
