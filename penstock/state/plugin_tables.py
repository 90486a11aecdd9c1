"""The tables of plugins: what is installed, and what plugins have told."""
