"""``python -m forebay demo``: see :func:`forebay.demo`."""

from __future__ import annotations

import argparse
import sys

import forebay


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m forebay", description=f"forebay {forebay.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train a small network, and show what forebay makes of it (needs NumPy)")
    demo.add_argument("--dir", default="runs", help="the folder of all runs (default: %(default)s)")
    demo.add_argument("--epochs", type=int, default=12, help="how often the network sees all images (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        forebay.demo(arguments.dir, arguments.epochs)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
