"""Objects of libraries, as the numbers, texts, lists and dicts that an event can keep."""

from __future__ import annotations

import dataclasses
import enum
import operator
import os
from collections.abc import Mapping, Set
from datetime import date, time, timedelta
from typing import Any


def plain(value: Any) -> Any:
    """Returns what stands for an object in an event, or the object itself if nothing does.

    Members of an ``Enum`` become their values, paths texts, dates and times texts of ISO 8601, spans of time seconds, those of NumPy as well,
    to the microsecond; scalars of NumPy and tensors of one element (without dimensions) become numbers; mappings and dataclasses become
    dicts; sets become lists.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        # Of other units than microseconds, `item` may make a bare number.
        found = value.astype(f"{kind}8[us]").item() if kind in ("M", "m") else value.item()
        return found if found is value else plain(found)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def whole(name: str, value: Any, least: int = 0) -> int:
    """Returns a whole number for the extension module, which would not say which argument does not fit.

    Args:
        name: What it is, for errors.
        value: The number.
        least: The least that is allowed.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is less, or does not fit in 64 bits.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if not least <= number < 1 << 63:
        raise ValueError(f"{name} must be from {least} to 2**63 - 1, got {number}")
    return number
