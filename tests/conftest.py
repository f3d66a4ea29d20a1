"""For all tests: signals as a terminal has them, and nothing that depends on how busy the machine is."""

import functools
import gc
import os
import signal

import typer.main
from hypothesis import HealthCheck, settings

# Whoever starts the tests in the background may have had these ignored, and programs that are started inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def _unsynced(descriptor):
    """Leave data to the page cache: what a killed process wrote is there, and no test cuts the power.

    It still fails where fsync would, on what is no open file; tests put their own in its place to watch or to break it,
    and programs that tests start have the real one.
    """
    os.fstat(descriptor)


os.fsync = _unsynced

# The hundred commands are the same at every call of the command line in this process: a tenth of a second each time.
typer.main.get_command = functools.cache(typer.main.get_command)


def pytest_collection_finish():
    """Keep the collector of garbage from looking through thousands of tests, which stay, again and again."""
    gc.collect()
    gc.freeze()
