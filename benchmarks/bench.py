"""Running sides in turn, round after round."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .environment import peer_python
from .measure import NotAvailableError, Run
from .process import JobFailedError, run_job
from .service import DATASET, WARMING, Service
from .sizes import Sizes

Round = dict[str, "Run | Exception"]


@dataclass(frozen=True)
class Side:
    """One of those that are measured in turn.

    Parameters
    ----------
    name
        What to call it.
    module, job
        Where its work is.
    given
        What its job is told besides the service: from the bench, and the number of the round.
    peer
        Whether it runs in the peer's environment.
    """

    name: str
    module: str
    job: str
    given: Callable[[Bench, int], Mapping[str, Any]] = lambda bench, number: {}
    peer: bool = False


@dataclass
class Bench:
    """What a measurement has at hand.

    Parameters
    ----------
    sizes
        How large everything is.
    work
        Folder for the peer's environment and for what runs leave behind.
    service
        The server, running.
    peer
        The peer's interpreter; None makes an environment when it is first needed, and an empty
        text leaves the peer out.
    """

    sizes: Sizes
    work: Path
    service: Service
    peer: str | None = None

    @cached_property
    def peer_python(self) -> str | NotAvailableError:
        """The peer's interpreter, or why there is none."""
        if self.peer == "":
            return NotAvailableError("the peer is left out")
        try:
            return self.peer or peer_python(self.work)
        except NotAvailableError as error:
            return error

    def run(self, side: Side, number: int) -> Run:
        """Run one side in a fresh process with an empty cache folder.

        Parameters
        ----------
        side
            Which.
        number
            Of the round.

        Returns
        -------
        run
            What the job measured, and what the server was asked meanwhile: ``requests`` for
            images, how many ``images`` these were, the ``most`` requests for one of them, their
            ``bytes``, and the ``pixels`` they show.
        """
        python = sys.executable
        if side.peer:
            if isinstance(self.peer_python, Exception):
                raise self.peer_python
            python = self.peer_python
        server = self.service.server
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.work))
        try:
            server.reset_log()
            given = {
                "url": server.url,
                "dataset": DATASET,
                "warming": WARMING,
                "folder": str(folder),
                **side.given(self, number),
            }
            environment = {
                "ATLDLD_API_URL": server.url,
                "ATLDLD_CACHE_DIR": str(folder / "cache"),
                "XDG_CACHE_HOME": str(folder / "cache"),
            }
            run = run_job(side.module, side.job, given, python=python, environment=environment)
            run.counts |= {f"served {name}": count for name, count in self._served().items()}
            return run
        finally:
            shutil.rmtree(folder)

    def rounds(self, sides: Iterable[Side], runs: int, told: Callable[[str], None]) -> list[Round]:
        """Run sides in turn, `runs` times over.

        What is not available, or fails, in the first round is not tried again.

        Parameters
        ----------
        sides
            In the order in which they take turns.
        runs
            How many rounds.
        told
            Called with a line of progress.
        """
        every: list[Round] = []
        for number in range(runs):
            one: Round = {}
            for side in sides:
                before = every[0].get(side.name) if every else None
                if isinstance(before, Exception):
                    one[side.name] = before
                    continue
                try:
                    run = self.run(side, number)
                    one[side.name] = run
                    told(f"round {number + 1} of {runs}, {side.name}: {run.wall():.3f} s")
                except (NotAvailableError, JobFailedError) as error:
                    one[side.name] = error
                    told(f"round {number + 1} of {runs}, {side.name}: {error}")
            every.append(one)
        return every

    def _served(self) -> dict[str, int]:
        images = self.service.images()
        each = Counter(request.image_id for request in images)
        return {
            "requests": len(images),
            "images": len(each),
            "most": max(each.values(), default=0),
            "bytes": sum(request.bytes_sent for request in images),
            "pixels": sum((request.width or 0) * (request.height or 0) for request in images),
        }
