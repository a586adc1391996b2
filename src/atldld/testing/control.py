"""The control requests of a server: its log, its faults, its preparation.

They are answered under ``/_testing/``, apart from the API, and are not logged.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .traffic import Fault
from .wire import Answer

if TYPE_CHECKING:
    from .server import AllenServer


def control(server: AllenServer, path: str, body: bytes) -> Answer:
    """Answer one control request; `body` is JSON, or empty."""
    wanted = path.removeprefix("/_testing/")
    try:
        given: Any = json.loads(body) if body else {}
        answer: Any = {}
        if wanted == "log":
            answer = {
                "requests": [request.to_json() for request in server.requests],
                "connections_high_water": server.connections_high_water,
                "errors": list(server.errors),
            }
        elif wanted == "reset":
            server.reset_log()
        elif wanted == "fault":
            server.add_fault(Fault.from_json(given))
        elif wanted == "clear-faults":
            server.clear_faults()
        elif wanted == "prepare":
            answer = {"bytes": server.prepare(**given)}
        else:
            return Answer(404, b"{}", "application/json")
    except (TypeError, ValueError, LookupError) as error:
        return Answer(400, json.dumps({"error": str(error)}).encode(), "application/json")
    return Answer(200, json.dumps(answer).encode(), "application/json")
