"""Where the words of a response stand in the corpus, exactly, and whom that credits. numba, no torch.

numba is imported when an index is built or opened, not before.
"""

from poa.spans.calibrate import Calibration, calibrate
from poa.spans.credit import CreditedWindow, Priority, SpanCredit, credit
from poa.spans.display import OlmoTrace
from poa.spans.documents import Document
from poa.spans.index import SpanIndex
from poa.spans.information import Unigram
from poa.spans.masks import Commons
from poa.spans.trace import Span, SpanDocument, trace

__all__ = [
    "Calibration",
    "Commons",
    "CreditedWindow",
    "Document",
    "OlmoTrace",
    "Priority",
    "Span",
    "SpanCredit",
    "SpanDocument",
    "SpanIndex",
    "Unigram",
    "calibrate",
    "credit",
    "trace",
]
