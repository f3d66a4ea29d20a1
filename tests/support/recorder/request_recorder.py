"""Notes every request that Flower's SuperNode sends, signed as it is; imported by a Python made for it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

if "RECORD_TO" in os.environ and any("quire.consortium.supernode" in part for part in sys.orig_argv):
    import httpx

    _send = httpx.Client.send

    def _noting(client: httpx.Client, request: httpx.Request, **more: Any) -> httpx.Response:
        told = {
            **{"method": request.method, "path": request.url.path, "headers": dict(request.headers)},
            "body": request.read().hex(),
        }
        with open(os.environ["RECORD_TO"], "a") as file:
            file.write(json.dumps(told) + "\n")
        return _send(client, request, **more)

    httpx.Client.send = _noting  # type: ignore[method-assign]
