"""What a run folder says of its settings, whatever became of them."""

import pytest

from quire.strategies.told import layers_kept, settings_told


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"training:\n  local_layers:\n  - head\n  - '2'\n", "head,2"),
        (b"training: {local_layers: []}", ""),
        (b"training: {lr: 1.0}", ""),
        (b"training: {local_layers: head}", "head"),
        (b"training: {local_layers: [3, null]}", "3,None"),
        (b"training: [local_layers]", ""),
        (b"- training", ""),
        (b"training: [", ""),
        (b"\xff", ""),
    ],
)
def test_layers_are_read_from_whatever_the_settings_are(tmp_path, text, kept):
    (tmp_path / "settings.yaml").write_bytes(text)
    assert layers_kept(tmp_path) == kept


def test_a_folder_without_settings_says_nothing(tmp_path):
    assert settings_told(tmp_path) == {}
    assert layers_kept(tmp_path) == ""
