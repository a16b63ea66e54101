"""Attacks, one idea a file; `attack(name)` is what configurations and jobs read."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches

from poa.errors import PoaError
from poa.gaming.attacks.boilerplate_farm import BoilerplateFarm
from poa.gaming.attacks.copier import Copier
from poa.gaming.attacks.noise_farm import NoiseFarm
from poa.gaming.view import Attack

ATTACKS: dict[str, type[Copier] | type[NoiseFarm] | type[BoilerplateFarm]] = {
    kind.name: kind for kind in (Copier, NoiseFarm, BoilerplateFarm)
}

__all__ = ["ATTACKS", "BoilerplateFarm", "Copier", "NoiseFarm", "attack"]


def attack(name: str, **settings: int) -> Attack:
    """The attack `name` with `settings`; an unknown name or setting is refused with the valid ones."""
    if name not in ATTACKS:
        near = get_close_matches(name, ATTACKS, 1, 0.0)[0]
        raise PoaError(f"no attack {name!r}; did you mean {near!r}? ({', '.join(ATTACKS)})")
    known = [field.name for field in fields(ATTACKS[name])]
    for setting in settings:
        if setting not in known:
            raise PoaError(f"attack {name} has no setting {setting!r}; it has {', '.join(known)}")
    return ATTACKS[name](**settings)
