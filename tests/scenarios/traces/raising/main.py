"""A monitoring plugin that nobody should have written: no call may notice."""

from typing import Any


def fail(event: Any) -> None:
    raise ValueError(event.model)
