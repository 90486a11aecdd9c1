"""YAML at a commit becomes an immutable graph of steps, and the graph a run."""
