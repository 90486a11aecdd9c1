"""Plugins: images against a contract, what they told, and the catalog to choose from."""
