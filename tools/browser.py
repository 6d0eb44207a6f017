"""The browser that shows what a reader sees: found, or installed where that is possible.

The tests of tearsheets need a Chromium. Debian's, Ubuntu's and Google's are all fine; QUANTBENCH_CHROMIUM names another.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from steps import StepError, command

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REMEDY = "install Chromium (Debian: apt-get install chromium), or name one in QUANTBENCH_CHROMIUM"


def browser() -> Path | None:
    """The first one that is there."""
    named = os.environ.get("QUANTBENCH_CHROMIUM")
    found = named or next((place for name in NAMES if (place := shutil.which(name))), None)
    return Path(found) if found and Path(found).exists() else None


def ready() -> str:
    """A browser, installed if need be: as root with apt, else whoever runs this has to."""
    found = browser()
    if found is None and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        command("apt-get", "update")
        command(
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "--no-install-recommends",
            "chromium",
        )
        found = browser()
    if found is None:
        raise StepError(f"no browser among {', '.join(NAMES)}: {REMEDY}")
    return str(found)
