"""Policies: presets, their Hydra twins, plain data, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from poa.errors import PoaError
from poa.rewards import settlement
from poa.rewards.policy import RULES, Policy

CONF = Path(__file__).parents[3] / "conf" / "policy"
PRESETS = ("net-epoch", "openledger-printed")


@pytest.mark.parametrize("name", PRESETS)
def test_the_yaml_twin_equals_the_preset(name: str) -> None:
    fields = yaml.safe_load((CONF / f"{name.replace('-', '_')}.yaml").read_text())
    assert fields.pop("_target_") == f"{Policy.__module__}.{Policy.__qualname__}"
    twin = Policy(**fields)
    assert twin == Policy.preset(name)
    assert repr(twin) == repr(Policy.preset(name))
    assert hash(twin) == hash(Policy.preset(name))


def test_every_yaml_has_a_preset() -> None:
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == sorted(name.replace("-", "_") for name in PRESETS)


def test_presets_are_10_20_20_50_and_only_the_netting_one_is_payable() -> None:
    for name in PRESETS:
        parts = dict(Policy.preset(name).parts)
        assert parts == {"platform": 100_000, "model": 200_000, "stakers": 200_000, "contributors": 500_000}
    assert Policy.preset("net-epoch").payable
    assert Policy.preset("net-epoch").z2 == (4, 1)
    assert not Policy.preset("openledger-printed").payable


def test_every_rule_can_settle() -> None:
    assert set(settlement._RULES) == set(RULES)
    for rule in RULES:
        policy = replace(Policy.preset("net-epoch"), rule=rule, payable=False)
        assert settlement.settle([], policy).total == 0


def test_unknown_preset_and_rule_name_the_nearest() -> None:
    with pytest.raises(PoaError, match="unknown policy 'net-epok'; did you mean 'net-epoch'"):
        Policy.preset("net-epok")
    with pytest.raises(PoaError, match="unknown rule 'net-epoch/2'; did you mean 'net-epoch/1'"):
        replace(Policy.preset("net-epoch"), rule="net-epoch/2")


@pytest.mark.parametrize("name", PRESETS)
def test_plain_data_round_trip(name: str) -> None:
    policy = replace(Policy.preset(name), version=3, licence_share=250_000, minimum_payout=7)
    data = policy.to_json()
    assert Policy.from_json(data) == policy
    assert Policy.from_json(data).digest == policy.digest
    assert_ledger_domain(data)


def assert_ledger_domain(value: object) -> None:
    """What a ledger leaf may hold: strings, integers in 0 ... 2^53 - 1, booleans, arrays, objects with plain keys."""
    if isinstance(value, dict):
        for key, child in value.items():
            assert re.fullmatch("[a-z][a-z0-9_]*", key)
            assert_ledger_domain(child)
    elif isinstance(value, list):
        for child in value:
            assert_ledger_domain(child)
    else:
        assert type(value) in (str, bool) or (type(value) is int and 0 <= value < 2**53)


def test_the_digest_tells_every_field() -> None:
    policy = Policy.preset("net-epoch")
    changes = [
        {"id": "other"},
        {"version": 2},
        {"rule": "openledger-printed/1", "payable": False},
        {"payable": False},
        {"parts": (("contributors", 1_000_000),)},
        {"licence_share": 1},
        {"z2": (9, 1)},
        {"minimum_payout": 1},
    ]
    digests = {policy.digest, *(replace(policy, **change).digest for change in changes)}
    assert len(digests) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Net Epoch"}, "policy id 'Net Epoch' must be"),
        ({"version": 0}, "version of policy 'net-epoch' is 0, must be an integer, 1 to"),
        ({"version": True}, "version of policy 'net-epoch' is True"),
        ({"parts": (("contributors", 999_999),)}, "parts add up to 999999, must be 1000000"),
        ({"parts": (("model", 1_000_000),)}, "parts must include 'contributors'"),
        ({"parts": (("model", 500_000), ("contributors", 500_000))}, "parts must be sorted by name"),
        ({"parts": (("contributors", 500_000), ("contributors", 500_000))}, "each name once"),
        ({"parts": (("contributors", 1_000_001), ("model", -1))}, "part 'contributors' of policy"),
        ({"parts": (("contributors", 0.5),)}, "part 'contributors' of policy 'net-epoch' is 0.5"),
        ({"parts": {"contributors": 1_000_000}}, "parts must include 'contributors'"),
        ({"parts": (("Contributors", 1_000_000),)}, "must be \\(name of a-z, 0-9 and _"),
        ({"licence_share": 1_000_001}, "licence_share of policy 'net-epoch' is 1000001"),
        ({"z2": (4,)}, "must be two integers"),
        ({"z2": (4, 0)}, "denominator of z2 of policy 'net-epoch' is 0"),
        ({"z2": (-4, 1)}, "numerator of z2 of policy 'net-epoch' is -4"),
        ({"z2": 4.0}, "z2 of policy 'net-epoch' is 4.0"),
        ({"minimum_payout": -1}, "minimum_payout of policy 'net-epoch' is -1"),
        ({"payable": 1}, "payable of policy 'net-epoch' is 1, must be true or false"),
        ({"rule": "openledger-printed/1", "payable": True}, "is for comparison, payable must be false"),
    ],
)
def test_refusals_name_the_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        replace(Policy.preset("net-epoch"), **change)


def test_from_json_wants_exactly_its_fields() -> None:
    data = Policy.preset("net-epoch").to_json()
    with pytest.raises(PoaError, match="policy has no field 'licence_shere'; did you mean 'licence_share'"):
        Policy.from_json({**data, "licence_shere": 1})
    with pytest.raises(PoaError, match="policy lacks the field 'z2'"):
        Policy.from_json({name: value for name, value in data.items() if name != "z2"})
    with pytest.raises(PoaError, match="parts of a policy must be a list"):
        Policy.from_json({**data, "parts": {"contributors": 1_000_000}})
