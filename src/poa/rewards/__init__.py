"""From scores to money: signed credit per response, a policy as data, exact settlement. Numpy only, no torch."""

from poa.rewards.apportion import floor_and_carry, largest_remainder
from poa.rewards.credit import UNIT, Credit, net_credit, printed_credit
from poa.rewards.policy import Policy
from poa.rewards.settlement import ScoredReceipt, Settlement, receipts_of, settle, split_fee

__all__ = [
    "UNIT",
    "Credit",
    "Policy",
    "ScoredReceipt",
    "Settlement",
    "floor_and_carry",
    "largest_remainder",
    "net_credit",
    "printed_credit",
    "receipts_of",
    "settle",
    "split_fee",
]
