"""Flower's way in to the server: the component ``quire.server_app:app`` of the bundle.

It has to lie in this package itself. Flower looks for one app in one thread while it loads the other in another,
and Python does not make the first wait until the package has said, by extending ``__path__``, where the rooms are.
"""

from quire.strategies.server_app import app

__all__ = ["app"]
