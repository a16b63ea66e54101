"""Laws of positions, ticks and shades."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from poa.report.scales import FAINT, STEPS, Scale, covering, shade

exact = settings(deadline=None, derandomize=True)

finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@exact
@given(st.lists(finite, max_size=8), st.booleans(), st.sampled_from([0.0, 0.1]))
def test_a_covering_scale_holds_its_values(values: list[float], zero: bool, margin: float) -> None:
    scale = covering(values, zero, margin)
    assert scale.low < scale.high
    for value in [*values, *([0.0] if zero else [])]:
        assert scale.low <= value <= scale.high
        assert abs(scale.low + scale.at(value) / 100 * (scale.high - scale.low) - value) <= 1e-6 * (1 + abs(value))


@exact
@given(finite, st.floats(1e-3, 1e6), st.integers(2, 6))
def test_ticks_are_round_and_inside(low: float, width: float, wanted: int) -> None:
    scale = Scale(low, low + width)
    ticks = scale.ticks(wanted)
    assert len(ticks) <= wanted + 1
    slack = 1e-6 * width
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)


def test_known_ticks() -> None:
    assert Scale(-1.2, 3.1).ticks(5) == [-1, 0, 1, 2, 3]
    assert Scale(0, 300).ticks(3) == [0, 100, 200, 300]


@exact
@given(finite, st.floats(1e-3, 1e6))
def test_shades_mirror_and_name_the_sign(value: float, top: float) -> None:
    step, mirrored = shade(value, top), shade(-value, top)
    assert mirrored == step.translate(str.maketrans("pn", "np"))
    if abs(value) < FAINT * top:
        assert step == "z"
    else:
        assert step[0] == ("p" if value > 0 else "n")
        assert 1 <= int(step[1:]) <= STEPS


@exact
@given(st.floats(0, 10), st.floats(0, 10))
def test_shades_grow_with_size(one: float, two: float) -> None:
    strength = [0 if step == "z" else int(step[1:]) for step in (shade(min(one, two), 10), shade(max(one, two), 10))]
    assert strength == sorted(strength)


def test_full_colour_is_the_peak_and_nothing_has_none() -> None:
    assert (shade(0.28, 0.28), shade(-0.28, 0.28), shade(0.0, 0.0)) == ("p4", "n4", "z")
