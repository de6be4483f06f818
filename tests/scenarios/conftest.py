"""What the scenarios share lies beside them: machine.py here, a node.py of its own in each folder."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
