"""What a strategy's settings may say."""

import pytest

from penstock.deploy.analysis import Analysis
from penstock.deploy.strategies import CanaryStep, Settings, check_settings, portion
from penstock.errors import InputError


@pytest.mark.parametrize(
    ("value", "replicas", "up", "number"),
    [
        (2, 10, True, 2),
        ("25%", 10, True, 3),
        ("25%", 10, False, 2),
        ("0%", 5, True, 0),
        ("100%", 5, False, 5),
        ("1%", 1, True, 1),
    ],
)
def test_portion_is_rounded_as_kubernetes_does(value, replicas, up, number):
    """Surge up, unavailable down."""
    assert portion(value, replicas, where="", up=up) == number


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        (Settings(max_surge=-1), "strategy.max_surge"),
        (Settings(max_surge="a quarter"), "strategy.max_surge"),
        (Settings(max_unavailable="101%"), "strategy.max_unavailable"),
        (Settings(max_unavailable="-5%"), "strategy.max_unavailable"),
        (Settings(name="blue_green", keep_s=-1), "strategy.keep_s"),
        (Settings(name="blue_green", keep_s=float("nan")), "strategy.keep_s"),
        (Settings(name="canary"), "strategy.steps"),
        (Settings(name="canary", steps=(CanaryStep(weight=0),)), "strategy.steps[0]"),
        (Settings(name="canary", steps=(CanaryStep(weight=101),)), "strategy.steps[0]"),
        (Settings(name="canary", steps=(CanaryStep(weight=20), CanaryStep(weight=20))), "strategy.steps[1]"),
        (Settings(name="canary", steps=(CanaryStep(weight=5, hold_s=-1),)), "strategy.steps[0].hold_s"),
        (Settings(name="canary", steps=(CanaryStep(weight=5),), failure_limit=-1), "strategy.failure_limit"),
        (Settings(name="canary", steps=(CanaryStep(weight=5),), analysis=Analysis()), "strategy.analysis"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings, where):
    """Where, what, and the remedy."""
    with pytest.raises(InputError) as error:
        check_settings(settings)
    assert error.value.where == where
    assert error.value.remedy
