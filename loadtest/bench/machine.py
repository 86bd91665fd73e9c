"""What a benchmark ran on."""

import os
import platform
from pathlib import Path


def describe() -> dict[str, str | int | float]:
    """Name processor, memory, system, and what else ran."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor,
        "cores": os.cpu_count() or 0,
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min_at_start": round(os.getloadavg()[0], 2),
    }
