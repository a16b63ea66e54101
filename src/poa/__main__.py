"""`python -m poa` is `poa`."""

import sys

from poa.cli import main

sys.exit(main())
