"""Streamlit pages over Penstock: they read through its queries and act through its API."""
