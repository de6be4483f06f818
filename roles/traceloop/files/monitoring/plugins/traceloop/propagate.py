# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`traceparent` on a model call's request to the plugin daemon, so that the daemon's spans and logs join its trace.

Dify sends one only with ENABLE_OTEL, and before 1.14 one of an unrelated trace. Every dispatch crosses
`_stream_request` of the daemon client's base class, in all releases since 1.0; it is wrapped once and adds the header
only inside a call.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from typing import Any

BASES = (("core.plugin.impl.base", "BasePluginClient"), ("core.plugin.manager.base", "BasePluginManager"))
METHOD = "_stream_request"
HEADER = "traceparent"
ORIGINAL = "__llmops_original__"

# Set in the private context of a call; empty everywhere else.
outgoing: contextvars.ContextVar[str] = contextvars.ContextVar("llmops_traceparent", default="")
_wrapped: dict[type, Any] = {}


def install() -> None:
    for module, name in BASES:
        cls = getattr(sys.modules.get(module), name, None)
        if isinstance(cls, type) and METHOD in vars(cls) and cls not in _wrapped:
            found = vars(cls)[METHOD]
            # In a forked child this module is a new one, and the class still wears the parent's wrapper.
            _wrapped[cls] = getattr(found, ORIGINAL, found)
            setattr(cls, METHOD, _with_header(_wrapped[cls]))


def remove() -> None:
    while _wrapped:
        cls, original = _wrapped.popitem()
        setattr(cls, METHOD, original)


def _with_header(original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def request(*args: Any, **kwargs: Any) -> Any:
        value = outgoing.get()
        if value:
            try:
                bound = signature.bind(*args, **kwargs)
                headers = dict(bound.arguments.get("headers") or {})
                if not any(key.lower() == HEADER for key in headers):
                    bound.arguments["headers"] = {**headers, HEADER: value}
                    args, kwargs = bound.args, bound.kwargs
            except (TypeError, ValueError, AttributeError):  # another shape of call than the ones known: leave it alone
                pass
        return original(*args, **kwargs)

    setattr(request, ORIGINAL, original)
    return request
