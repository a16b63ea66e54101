"""Import first: peers draw progress bars and log to the terminal on which one JSON line is to be read."""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# dattri's LoGra compiles its projections anew for every shape of batch, half a minute each, to the same results.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
logging.disable(logging.WARNING)
warnings.filterwarnings("ignore", message=".*GradScaler.*deprecated.*")
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing. is deprecated.*")
