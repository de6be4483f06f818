# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A monitoring plugin that keeps a cost log.

How such a plugin is made: roles/traceloop/files/monitoring/README.md.

The price is the one Dify knows for the model, else the one in prices.json (electricity and hardware of an own model
server). The log is COST_LOG_FILE, by default in Dify's storage, which survives an upgrade; it holds no content.
"""

from __future__ import annotations

import json
import os
import pathlib
import time

PRICES = json.loads(pathlib.Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
_file = -1


def run():
    global _file
    path = os.environ.get("COST_LOG_FILE", "/app/api/storage/cost-log.jsonl")
    _file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


def record(event):
    usage = event.usage or {}
    cost, currency = cost_of(event.model, usage)
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.started_ns / 1e9)),
        "kind": event.kind,
        "provider": event.provider,
        "model": event.model,
        "app": event.app_id,
        "user": event.user,
        "outcome": event.outcome,
        "seconds": round(event.duration, 3),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cost": cost,
        "currency": currency,
    }
    # One write to a file opened for appending: lines of several processes never mix.
    os.write(_file, (json.dumps(line) + "\n").encode())


def cost_of(model, usage):
    if usage.get("total_price"):
        return usage["total_price"], usage["currency"]
    price = PRICES["models"].get(model) or PRICES["models"]["*"]
    cost = sum(usage.get(f"{side}_tokens", 0) * price[side] for side in ("prompt", "completion")) / PRICES["per_tokens"]
    return round(cost, 9), PRICES["currency"]


def close():
    global _file
    if _file >= 0:
        os.close(_file)
        _file = -1
