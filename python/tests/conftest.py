"""What holds for every test."""

import signal

# A shell that starts the tests in the background has them, and the programs that they start, ignore the keyboard's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
