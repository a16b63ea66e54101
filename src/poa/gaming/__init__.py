"""Ways to be paid without value, and what they earn under each payment rule."""

from poa.gaming.attacks import ATTACKS, BoilerplateFarm, Copier, NoiseFarm, attack
from poa.gaming.compare import Outcome, compare
from poa.gaming.payday import Earnings, NetRule, PrintedRule, Rule
from poa.gaming.view import Attack, View, World, look

__all__ = [
    "ATTACKS",
    "Attack",
    "BoilerplateFarm",
    "Copier",
    "Earnings",
    "NetRule",
    "NoiseFarm",
    "Outcome",
    "PrintedRule",
    "Rule",
    "View",
    "World",
    "attack",
    "compare",
    "look",
]
