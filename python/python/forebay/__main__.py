"""The command line: ``python -m forebay``. ``demo`` is here, see :func:`forebay.demo`; all else is in the package ``forebay-cli``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig

import forebay


def program() -> str | None:
    """Where the program of ``forebay-cli`` is: beside this interpreter, or else where the shell would find it."""
    return shutil.which("forebay", path=sysconfig.get_path("scripts")) or shutil.which("forebay")


def demo(arguments: list[str]) -> None:
    """Runs ``demo``."""
    parser = argparse.ArgumentParser(prog="python -m forebay demo", description="train a small network (needs NumPy)")
    parser.add_argument("--dir", default="runs", help="the folder of all runs (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="how often the network sees all images (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        forebay.demo(options.dir, options.epochs)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def main() -> None:
    """Runs what the command line asks for."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["demo"]:
        return demo(arguments[1:])
    found = program()
    if not found:
        text = f"forebay {forebay.__version__}: `demo` is here; `runs`, `best`, `top` and others come with the package forebay-cli"
        return print(text) if arguments in (["--help"], ["-h"]) else sys.exit(text)
    try:
        os.execv(found, [found, *arguments])
    except OSError as error:
        sys.exit(f"error: {found}: {error}")


if __name__ == "__main__":
    main()
