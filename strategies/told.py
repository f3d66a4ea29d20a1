"""What a run's own folder says of its settings, for those who take its model on without composing settings anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.conf.strict_yaml import loaded


def settings_told(folder: Path) -> Mapping[str, Any]:
    """Return the tree of ``settings.yaml``; empty where that is damaged: whoever verifies says what is wrong with it.

    Parameters
    ----------
    folder : pathlib.Path
        Of a run.
    """
    try:
        tree = loaded((folder / "settings.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, Mapping) else {}


def layers_kept(folder: Path) -> str:
    """Return ``training.local_layers``, the layers that stayed in the silos; empty where the model has all of its own.

    Parameters
    ----------
    folder : pathlib.Path
        Of a run.

    Returns
    -------
    str
        As the folder has them, which others may have written: words with commas between, if they are what a run writes.
    """
    training = settings_told(folder).get("training")
    words = training.get("local_layers") if isinstance(training, Mapping) else None
    if not words:
        return ""
    return ",".join(map(str, words)) if isinstance(words, list) else str(words)
