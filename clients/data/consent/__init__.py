"""Consent at a silo: whose rows may be trained on as of this round, requests for erasure, and what was trained on.

==============  ==================================================================================
``ids``         subject ids as exact text, whatever a table holds them as
``section``     the section ``consent:`` of ``silo.yaml``
``table``       the table of withdrawals, or of consent given, read again whenever it has changed
``place``       where a silo keeps what follows, its key for subjects, chained lines
``requests``    erasure requests: keyed hashes of ids, no ids
``sieve``       which rows are left out and why
``lineage``     what each trained round was trained on, in counts
``traces``      in which rounds a subject was, and what is there to go back to
==============  ==================================================================================

None of it travels. Under differential privacy an exact count of rows is as private as a row.
"""
