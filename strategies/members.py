"""Which member of a consortium a node is, by the key that Flower authenticates it with: not by what it says itself.

Flower 1.41 tells a ServerApp the public key of every node (``Grid.get_nodes``). It tells a name as well, which is that
under which somebody registered the key; whose key it is, the operator's own list says, which this machine keeps.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from flwr.serverapp import Grid

from quire.errors import RunFailed

#: Names the list of members' node keys to a ServerApp; without it nodes are who they say.
MEMBERS_VARIABLE = "QUIRE_MEMBERS"


def read_members(path: Path) -> dict[bytes, str]:
    """Read whose a node key is: lines of a name, a space, and the key's bytes in base64.

    Returns
    -------
    dict of bytes to str
        Name by key, in the bytes in which Flower keeps and tells it.

    Raises
    ------
    RunFailed
        If the file cannot be read, or is no such list: in doubt nobody is taken for a member.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [(base64.b64decode(key, validate=True), name) for name, key in (line.split(" ") for line in lines)]
        members = dict(pairs)
        if len(members) != len(pairs) or not all(key and name for key, name in pairs):
            raise ValueError("a key stands in it twice, or a line lacks something")
    except (OSError, ValueError, binascii.Error) as error:
        raise RunFailed(
            f"The list of members' node keys, {path}, cannot be read ({error}): start the server again, which "
            "writes it."
        ) from None
    return members


def members_of(grid: Grid, members: Mapping[bytes, str]) -> dict[int, str]:
    """Return which member each node is; a node whose key is no member's is missing.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    members : mapping of bytes to str
        As :func:`read_members` returns it.
    """
    return {node.node_id: members[node.public_key] for node in grid.get_nodes() if node.public_key in members}
