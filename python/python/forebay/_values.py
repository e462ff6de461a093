"""Objects of libraries, as the numbers, texts, lists and dicts that an event can keep."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Mapping, Set
from datetime import date, time, timedelta
from typing import Any


def plain(value: Any) -> Any:
    """Returns what stands for an object in an event, or the object itself if nothing does.

    Members of an ``Enum`` become their values, paths texts, dates and times texts of ISO 8601, spans of time seconds; scalars of NumPy and
    tensors of one element (without dimensions) become numbers; mappings and dataclasses become dicts; sets become lists.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value
