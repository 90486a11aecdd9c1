"""Hypothesis for these tests: no deadlines, for the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("findings", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("findings")
