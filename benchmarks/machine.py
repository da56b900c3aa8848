"""What figures depend on: processors, interpreter, commit, and what else the machine does."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any


def about() -> dict[str, Any]:
    """Return it, without any name of the machine."""
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - the git that there is
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": head.stdout.strip() or None,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }
