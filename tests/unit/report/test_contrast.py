"""The style sheet keeps 4.5:1 for text in light and dark, computed from its own colours (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("poa.report").joinpath("page.css").read_text(encoding="utf-8")
SHADES = [*(f"p{i}" for i in range(1, 5)), *(f"n{i}c" for i in range(1, 5))]


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block))


_LIGHT, _DARK, _ = CSS.split(":root {")[1:]
THEMES = {"light": _colours(_LIGHT), "dark": _colours(_DARK)}


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    high, low = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_contrast(theme: str) -> None:
    colour = THEMES[theme]
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("paper", "card", "faint")]
    pairs += [(ink, ground) for ink in ("helped", "hurt", "good", "bad") for ground in ("paper", "card")]
    pairs += [("ink", shade) for shade in SHADES] + [("paper", dot) for dot in ("helped", "hurt")]
    poor = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_stripes_leave_the_text_readable(theme: str) -> None:
    """The stripe's ink is laid over the strongest orange at its own opacity; the text must still stand out."""
    block = _LIGHT if theme == "light" else _DARK
    found = re.search(r"--stripe: rgb\((\d+) (\d+) (\d+) / (\.\d+)\)", block)
    assert found is not None
    ground, opacity = THEMES[theme]["n4c"], float(found[4])
    mixed = [
        round(int(found[i + 1]) * opacity + int(ground[1 + 2 * i : 3 + 2 * i], 16) * (1 - opacity)) for i in range(3)
    ]
    assert contrast(THEMES[theme]["ink"], "#" + "".join(f"{part:02x}" for part in mixed)) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_marks_of_charts_have_contrast(theme: str) -> None:
    """Graphical objects need 3:1 (WCAG 2.2, 1.4.11)."""
    colour = THEMES[theme]
    assert all(contrast(colour[mark], colour["paper"]) >= 3 for mark in ("helped", "hurt", "plain", "soft"))


@pytest.mark.parametrize("theme", THEMES)
def test_steps_of_a_sign_grow_apart_from_the_page(theme: str) -> None:
    colour = THEMES[theme]
    for names in (SHADES[:4], SHADES[4:]):
        ratios = [contrast(colour[name], colour["card"]) for name in names]
        assert ratios == sorted(ratios)


def test_both_themes_name_the_same_colours() -> None:
    assert THEMES["light"].keys() == THEMES["dark"].keys()


def test_reduced_motion_is_honoured_and_nothing_is_loaded() -> None:
    assert "prefers-reduced-motion: reduce" in CSS
    assert re.findall(r"url\(([^)]*)\)", CSS) == ["#hatch"]
    assert "@import" not in CSS
    assert "@font-face" not in CSS
