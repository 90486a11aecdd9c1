"""Git events: accepted durably, each started exactly once."""
