#!/usr/bin/env python3
"""Stand-in for the entry point of the TGI image."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

from local.shims.tgi.launcher import entrypoint

sys.exit(entrypoint())
