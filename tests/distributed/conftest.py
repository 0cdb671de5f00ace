"""The operator's cases serve here too: their module is found beside the operator's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "ops"))
