"""Where figures are written: a folder that git ignores."""

import json
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "results"


def write(name: str, found: dict[str, Any]) -> Path:
    """Write figures as JSON over those of the last time; return where they are."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path
