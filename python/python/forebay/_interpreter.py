"""Refuses to be imported in a sub-interpreter: the extension module has one state for the whole process."""

from __future__ import annotations

import importlib


def is_main() -> bool:
    """Returns whether this is the main interpreter of the process, as far as Python tells."""
    # Before 3.13, and from then on. Neither is public, and neither need be there.
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            module = importlib.import_module(name)
            # The number, or a pair with it.
            current, main = ((each[0] if isinstance(each, tuple) else each) for each in (module.get_current(), module.get_main()))
        except (ImportError, AttributeError, RuntimeError):
            continue
        return bool(int(current) == int(main))
    return True


if not is_main():
    raise ImportError("forebay cannot be imported in a sub-interpreter: import it in the main interpreter", name="forebay")
