"""For all tests: signals as a terminal has them."""

import signal

# Whoever starts the tests in the background may have had these ignored, and programs that are started inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
