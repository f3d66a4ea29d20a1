"""The page to watch it all: ``quire dashboard``, read-only, rendered here, behind a login.

It runs where the files are: at the consortium's operator, at a silo, or beside a researcher's folder of runs. It
changes nothing, asks no other machine, and needs no JavaScript.

- :mod:`~quire.dashboard.roles`: who may see what.
- :mod:`~quire.dashboard.web`: the application; who is let in.
- :mod:`~quire.dashboard.serving`: where it listens.
"""
