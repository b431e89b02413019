"""`python -m shiftlens`."""

from __future__ import annotations

import sys

from shiftlens.cli import main

sys.exit(main())
