"""Where a run's working files are, and who may read them."""

from __future__ import annotations

from pathlib import Path

WORKSPACE = Path("mlruns") / "selfheal"
OWNER_ONLY = 0o600  # the rights of a file that may hold what others have sent
OWNERS_FOLDER = 0o700  # and of the folder that it is in
