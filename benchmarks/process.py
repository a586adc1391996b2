"""Jobs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .measure import NotAvailableError, Run

ROOT = Path(__file__).resolve().parent.parent


class JobFailedError(Exception):
    """A job ended without an answer; the message holds the end of what it said."""


def run_job(
    module: str,
    job: str,
    given: Mapping[str, Any],
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run one job in a fresh process, and return what it measured.

    Parameters
    ----------
    module, job
        Which job of which module of this package.
    given
        What it is told; plain values.
    python
        The interpreter that runs it.
    environment
        Variables to add to its environment. Options of this package that are set in the
        environment of this process are kept from it.

    Raises
    ------
    NotAvailableError
        If what it would measure is not there.
    JobFailedError
        If it failed.
    """
    variables = {name: value for name, value in os.environ.items() if name[:7] != "ATLDLD_"}
    done = subprocess.run(
        [python, "-m", f"benchmarks.{module}", job],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**variables, **(environment or {})},
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = (done.stderr or done.stdout).strip().splitlines()[-30:]
        raise JobFailedError("\n".join([f"{module} {job} ended with {done.returncode}:", *said]))
    told = json.loads(lines[-1])
    if "not_available" in told:
        raise NotAvailableError(told["not_available"])
    return Run.from_json(told["run"])
