"""Flower's way in to the silo: the component ``quire.client_app:app`` of the bundle; see :mod:`quire.server_app`."""

from quire.clients.client_app import app

__all__ = ["app"]
