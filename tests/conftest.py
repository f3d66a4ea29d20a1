"""For all tests: signals as a terminal has them, and nothing that depends on how busy the machine is."""

import signal

from hypothesis import HealthCheck, settings

# Whoever starts the tests in the background may have had these ignored, and programs that are started inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
