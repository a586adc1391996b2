"""Makes the benchmarks importable: they are part of the repository, not of the package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
collect_ignore_glob = [] if (ROOT / "benchmarks").is_dir() else ["test_*.py"]
sys.path.insert(0, str(ROOT))
