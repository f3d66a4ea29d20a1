"""Is the noise of a self-test the one that its settings promise? Worked out anew, as ``quire verify`` does of a run.

The opened sums are held against the noise that the journal says was agreed. Too little of it would pass for what was
promised if it were agreed upon, or written down, in the first place.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from quire.clients.secure.noise import noise_of
from quire.clients.secure.terms import terms_of
from quire.conf.compose import compose
from quire.conf.schema import SecureAggregation, Settings
from quire.errors import QuireError, SettingsError
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.selftest import Selftest
from quire.privacy.dp.shares import encoding_of
from quire.privacy.receipts import settings_hash
from quire.strategies.card_noise import KEY
from quire.strategies.material import read_material
from quire.strategies.selftest import judge


class NotAsPromised(QuireError):
    """The noise of a run is not the one that its settings promise."""


def judge_anew(folder: Path) -> Selftest:
    """Hold the sums of a self-test against the noise of its journal, and that against its settings.

    Raises
    ------
    SettingsError
        If the folder holds no self-test that came to its end, or what it holds cannot be read.
    NotAsPromised
        If the journal's noise is not the one that follows from the settings.
    """
    found = judge(folder)
    hold_to_promise(folder)
    return found


def promised(
    settings: Settings, secure: SecureAggregation, members: int, dimension: int
) -> tuple[SharedNoise, Encoding]:
    """Work out the noise of a run and its encoding anew, as its server and silos have.

    Parameters
    ----------
    settings : Settings
    secure : SecureAggregation
        Of the settings.
    members : int
        Of the roster.
    dimension : int
        Parameters of the model.

    Raises
    ------
    PrivacyError, SettingsError
        If no noise follows from these.
    """
    noise, terms = noise_of(settings, members), terms_of(settings, secure, members)
    return noise, encoding_of(noise, dimension, terms.bits, terms.rotation)


def hold_to_promise(folder: Path) -> None:
    """Hold the noise in the journal of a self-test against its settings.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder, with a roster if its silos are real.

    Raises
    ------
    NotAsPromised
        If the journal tells of another noise or encoding, or ``settings.yaml`` of other settings than it says itself.
    """
    try:
        material = read_material(folder)
        overrides = material.settings.get("overrides")
        settings = compose(overrides if isinstance(overrides, str) else "")
        if not isinstance(overrides, str) or settings_hash(settings.as_dict()) != settings_hash(material.settings):
            raise SettingsError("settings.yaml does not say what its own overrides compose to")
        members = len(material.roster.roster.members) if material.roster is not None else settings.partition.silos
        dimension, secure = material.start.get("parameters"), settings.aggregation
        if type(dimension) is not int or dimension < 1 or not isinstance(secure, SecureAggregation):
            raise SettingsError("the journal does not say how many parameters the model has")
        noise, encoding = promised(settings, secure, members, dimension)
    except (QuireError, PrivacyError, TypeError) as error:
        text = str(error).rstrip(".")
        raise NotAsPromised(f"What noise the self-test in '{folder}' was promised cannot be known: {text}.") from error
    told = material.start[KEY]
    if told["noise"] != json.loads(json.dumps(asdict(noise))):
        raise NotAsPromised(
            f"The noise is not as promised: the journal tells of a noise multiplier of "
            f"{told['noise']['noise_multiplier']:.4g} with numbers that do not follow from settings and roster, by "
            f"which it is {noise.noise_multiplier:.4g}."
        )
    if told["encoding"] != encoding.to_json():
        raise NotAsPromised("The noise is not as promised: its journal tells of another encoding than its settings.")
