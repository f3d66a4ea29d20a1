"""The transparency log: an append-only Merkle log, signed checkpoints, countersignatures, and who tells a fork.

Server and silos share it, so it lies below both. See ``docs/transparency-log.md``.
"""
