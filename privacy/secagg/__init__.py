"""Secure aggregation (SecAgg-Q): the server learns the sum over one set of survivors, and nothing else of a silo.

Client and server are state machines over bytes: no Flower, no files, no clock, and randomness is an argument.
"""
