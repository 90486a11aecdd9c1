"""The tables of environments: what may be deployed where, and under which rules."""
