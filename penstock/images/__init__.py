"""
Container images: built from a workspace, pushed to a registry, run.

A Docker socket is needed, whatever engine runs the shell steps.
"""
