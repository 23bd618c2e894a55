import numpy as np
import pytest

from holdfast.checks.units import CONVERSIONS, explanations, nearest, restored


def test_conversions_restore_known_values():
    known = {  # (was, now): (value as it was, value as it is now)
        ("°F", "°C"): (212.0, 100.0),
        ("°C", "°F"): (37.0, 98.6),
        ("K", "°C"): (273.15, 0.0),
        ("°F", "K"): (32.0, 273.15),
        ("K", "°F"): (310.15, 98.6),
        ("miles", "kilometres"): (1.0, 1.609344),
        ("metres", "feet"): (0.3048, 1.0),
        ("kilograms", "pounds"): (0.45359237, 1.0),
        ("knots", "mph"): (1.0, 1.150779),
        ("m/s", "mph"): (0.44704, 1.0),
        ("m/s", "knots"): (0.5144444, 1.0),
        ("inHg", "hPa"): (29.92, 1013.2),
        ("percent or ones", "shares or hundreds"): (42.0, 0.42),
    }
    conversions = {(c.was, c.now): c for c in CONVERSIONS}
    for pair, (before, after) in known.items():
        conversion = conversions[pair]
        assert after * conversion.scale + conversion.offset == pytest.approx(before, rel=1e-4), pair


def test_every_conversion_has_its_way_back():
    pairs = {(c.was, c.now): c for c in CONVERSIONS if c.scale > 0}
    for (was, now), conversion in pairs.items():
        back = pairs[now, was]
        assert (7.0 * conversion.scale + conversion.offset) * back.scale + back.offset == pytest.approx(7.0)


def test_restored_quantiles_ascend_even_for_the_sign():
    assert (np.diff(restored(np.array([-3.0, 1.0, 8.0])), axis=1) > 0).all()


def test_nearest_is_the_kth_smallest_largest_gap():
    days = np.array([[0.0, 0.0], [1.0, 5.0], [np.nan, 0.0]])
    assert nearest(np.array([0.0, 1.0]), days, kth=1) == 1.0
    assert nearest(np.array([0.0, 1.0]), days, kth=2) == 4.0


def test_celsius_comes_before_a_factor_that_explains_it_as_well():
    fahrenheit = np.array([[50.0, 60.0, 70.0]])
    found = explanations((fahrenheit[0] - 32) / 1.8, fahrenheit, within=3.0)
    assert (found[0].was, found[0].now) == ("°F", "°C")
    assert "value * 1.8 + 32 restores it" in found[0].told("temp")
