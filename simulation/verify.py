"""``quire verify``: put a run's privacy card together once more, offline, and say where it does not hold.

Nothing is taken from the card itself. Its figures follow from the receipts in the journal; the receipts are held
against the settings, the code, the chain of models and the roster. What cannot be known from a folder is said too: that
a roster is the right one, unless it is pinned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from quire.clients.code import code_hash
from quire.conf.asked import is_short_cut
from quire.conf.compose import compose
from quire.conf.schema import SecureAggregation, Settings, SiloPrivacy
from quire.errors import QuireError, SettingsError
from quire.privacy.dp.card import differences
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import Receipt, ReceiptError, settings_hash
from quire.simulation.verify_approvals import check_approvals
from quire.simulation.verify_charter import check_charter
from quire.simulation.verify_log import check_log
from quire.simulation.verify_noise import check_noise
from quire.simulation.verify_result import Stopped, Verification
from quire.simulation.verify_roster import trusted_roster
from quire.simulation.verify_secure import check_lost, check_short_cut
from quire.simulation.verify_transcripts import check_transcripts
from quire.strategies.adaptive import check_clips
from quire.strategies.card import CARD_FILE, PAGE_FILE, run_card
from quire.strategies.card_page import page
from quire.strategies.material import CardError, Material, read_material
from quire.strategies.receipts import contradictions
from quire.strategies.secure_words import NOT_SECURE

_MAX_CARD = 64 * 2**20


def verify_run(
    folder: Path, roster: Path | None = None, pin: str | None = None, charter: Path | None = None
) -> Verification:
    """Verify the privacy card of a run.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    roster : pathlib.Path, optional
        The consortium's roster, from where the reader trusts it; the run folder's own by default.
    pin : str, optional
        The hash that the roster must have.
    charter : pathlib.Path, optional
        The folder of the versions of the charter that the run is under, or the file of the only one.

    Returns
    -------
    Verification

    Raises
    ------
    SettingsError
        If the folder holds no run.
    """
    return _verified(folder, roster, pin, charter, every=False)


def examine_run(
    folder: Path, roster: Path | None = None, pin: str | None = None, charter: Path | None = None
) -> Verification:
    """Verify all that can be of a run, with or without privacy; see :func:`verify_run`.

    Without privacy there are no receipts and no card; there may be a log, a charter, approvals and transcripts.
    """
    return _verified(folder, roster, pin, charter, every=True)


def _verified(folder: Path, given: Path | None, pin: str | None, charter: Path | None, every: bool) -> Verification:
    result = Verification()
    if not folder.is_dir() or not (folder / "settings.yaml").is_file():
        raise SettingsError(f"'{folder}' is not the folder of a run: it holds no settings.yaml.")
    try:
        with result.part("files"):
            material = read_material(folder)
        if not material.private and not every:
            raise SettingsError(f"The run in '{folder}' had no privacy (privacy=none), so there is no card to verify.")
        if material.setting("privacy", "selftest"):
            raise SettingsError(f"'{folder}' holds a self-test of the noise: it releases nothing and has no card.")
        with result.part("settings"):
            settings = _settings(material, result)
            if is_short_cut(material.settings):
                result.notes.append(NOT_SECURE)
        with result.part("files"):
            about = _json(folder / "run.json")
            carded = material.private and (not every or bool(material.charged) or (folder / CARD_FILE).exists())
            card = _json(folder / CARD_FILE) if carded else {}
            material = _covered(material, card, about, result)
            simulated = _is_simulated(material) if carded else about.get("runtime") != "deployment"
        trusted, members = None, None
        if carded or simulated or any(one is not None for one in (given, pin, material.roster)):
            with result.part("roster"):
                found = trusted_roster(material, settings, simulated, given, pin)
                result.take(found.wrong, found.notes)
                trusted = found.roster
                members = len(trusted.members) if trusted is not None else None
        if carded:
            with result.part("receipts"):
                for number in range(len(material.lines)):
                    _check_round(material, number, settings, about, trusted, result)
            with result.part("noise"):
                result.wrong += check_noise(folder, material, settings, members)
        with result.part("chain"):
            _check_chain(folder, material, about, result)
        with result.part("log"):
            entries = check_log(folder, about, settings, material, trusted, result.wrong, result.notes)
        with result.part("charter"):
            result.take(*check_charter(about, settings, entries, charter))
        with result.part("approvals"):
            result.take(*check_approvals(folder, about, settings, trusted, entries))
        with result.part("transcripts"):
            audit = check_transcripts(folder, material, settings, about, trusted)
            result.take(audit.wrong, audit.notes)
        if carded:
            with result.part("card"):
                verdict = _check_card(folder, card, material, about, result)
            if verdict is not None:
                result.notes.insert(0, verdict)
                result.parts["card"][1].insert(0, verdict)
    except Stopped:
        pass
    return result


def _settings(material: Material, result: Verification) -> Settings | None:
    """Compose the settings anew from the overrides, and hold settings.yaml against them."""
    overrides = material.settings.get("overrides")
    try:
        settings = compose(overrides if isinstance(overrides, str) else "")
        if not isinstance(overrides, str) or settings_hash(settings.as_dict()) != settings_hash(material.settings):
            raise SettingsError("settings.yaml does not say what its own overrides compose to.")
    except QuireError as error:
        result.wrong.append(f"The settings cannot be trusted: {error}")
        return None
    except TypeError:  # keys of several types, which no settings have
        result.wrong.append("settings.yaml is not what a run writes.")
        return None
    return settings


def _covered(material: Material, card: Mapping[str, Any], about: Mapping[str, Any], result: Verification) -> Material:
    """Return the rounds that the card is about: all of them, unless the run was killed after it was written."""
    run = card.get("run")
    rounds = run.get("rounds") if isinstance(run, dict) else None
    done = rounds.get("done") if isinstance(rounds, dict) else None
    journalled = material.rounds[-1]["round"] if material.rounds else 0
    if isinstance(done, int) and 0 < done < journalled and about.get("status") == "running":
        result.notes.append(
            f"The run was killed or goes on: its card covers {done} of the {journalled} rounds in the journal; resume "
            "it for a card of all."
        )
        return material.up_to(done)
    return material


def _is_simulated(material: Material) -> bool:
    """Tell whether receipts come from simulated silos; they have to agree on it."""
    return any(receipt.body["simulated"] for receipts in material.receipts for receipt in receipts.values())


def _check_round(
    material: Material,
    number: int,
    settings: Settings | None,
    about: Mapping[str, Any],
    roster: Roster | None,
    result: Verification,
) -> None:
    """Check the receipts of one round: there, signed, about this round, and on the model of the round before."""
    line = material.lines[number]
    if line["event"] == "resume":
        return
    where, wrong = f"Round {line['round']}", result.wrong
    receipts = material.receipts[number]
    if list(receipts) != line["replied"]:
        wrong.append(f"{where}: the silos that replied are not those with a receipt.")
    failed = [str(entry.get("silo")) for entry in line["failed"] if entry.get("stage") == "train"]
    if settings is not None and isinstance(settings.aggregation, SecureAggregation):
        # Of those asked some may have no keys, or have trained for a sum that was opened without them, or not at all.
        failed = [silo for silo in line["cohort"] if silo not in line["replied"]]
    if sorted(line["cohort"]) != sorted([*line["replied"], *failed]):
        wrong.append(f"{where}: the silos that were asked are not those that replied or failed.")
    model, clip = _model_before(material, number), None
    wrong += [*check_lost(line, settings, model), *check_short_cut(line, settings)]
    privacy = settings.privacy if settings is not None else None
    if isinstance(privacy, SiloPrivacy) and privacy.clipping == "adaptive":
        clip = _moved_clip(material, number, privacy, result)
    for silo, receipt in receipts.items():
        wrong += [f"{where}, {silo[:80]}: {words}." for words in _of_silo(silo, receipt, roster, _began(about))]
        if settings is not None:
            code = str(about.get("code"))
            members = None if roster is None else len(roster.members)
            found = contradictions(receipt, settings, code, line["round"], model, clip, members)
            wrong += [f"{where}, {silo[:80]}: the receipt's {words}." for words in found]
        wrong += [f"{where}, {silo[:80]}: {words}." for words in _against_earlier(material, number, silo, receipt)]
    if len({receipt.body["run"] for receipt in receipts.values()}) > 1:
        wrong.append(f"{where}: receipts come from several runs.")


def _moved_clip(material: Material, number: int, privacy: SiloPrivacy, result: Verification) -> float | None:
    """Return the clip of a round where it is adaptive, once the journal's clips follow from its shares."""
    released = [line.get("released") for line in material.lines[: number + 1] if line["event"] == "round"]
    try:
        check_clips(privacy.clip, privacy.quantile, released)
    except PrivacyError as error:
        result.wrong.append(f"Round {material.lines[number]['round']}: {str(error).rstrip('.')}.")
        return None
    return float(material.lines[number]["released"]["clip"])


def _of_silo(silo: str, receipt: Receipt, roster: Roster | None, began: int | None) -> list[str]:
    found = []
    if receipt.body["silo"] != silo:
        found.append(f"the receipt is that of {receipt.body['silo'][:80]}")
    if roster is not None:
        try:
            member = roster.member(silo)
            receipt.check(member.identity)
            if began is not None and not member.active(began):
                found.append("the roster's entry for it was not valid when the run began")
        except (ReceiptError, IdentityError) as error:
            found.append(f"the receipt does not hold: {str(error).rstrip('.')}")
    return found


def _began(about: Mapping[str, Any]) -> int | None:
    """Return when the run began, in seconds since 1970, if run.json says so."""
    try:
        return int(datetime.fromisoformat(about["started"]).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _against_earlier(material: Material, number: int, silo: str, receipt: Receipt) -> list[str]:
    """Hold a receipt against the silo's one before: the same silo says the same of itself, and its ledger grows."""
    resumed = False
    for line, receipts in zip(reversed(material.lines[:number]), reversed(material.receipts[:number]), strict=True):
        resumed = resumed or line["event"] == "resume"
        before = receipts.get(silo)
        if before is None:
            continue
        one, other = before.body, receipt.body
        found = [
            f"the receipt's {key} changed within the run"
            for key in ("records", "population", "simulated", "noise_multiplier", "event")
            if one[key] != other[key]
        ]
        if one["run"] != other["run"] and not resumed:
            found.append("the receipt is from another run")
        ledgers = one["ledger"], other["ledger"]
        if None not in ledgers and ledgers[1]["entries"] <= ledgers[0]["entries"]:
            found.append("the silo's ledger did not grow since its receipt before: it was rolled back")
        return found
    return []


def _model_before(material: Material, number: int) -> str:
    for line in reversed(material.lines[:number]):
        if line["event"] == "round":
            return str(line["model"])
    return str(material.start.get("model"))


def _check_chain(folder: Path, material: Material, about: Mapping[str, Any], result: Verification) -> None:
    """Check that the rounds are all there, and end with the model that lies in the folder."""
    numbers = [line["round"] for line in material.rounds]
    if numbers != list(range(1, len(numbers) + 1)):
        result.wrong.append("The journal does not hold every round once, in order.")
    if about.get("status") == "running" or not material.rounds:
        return
    last = material.rounds[-1]["model"]
    if about.get("model") != last or about.get("rounds") != len(numbers):
        result.wrong.append("run.json names another last model, or another number of rounds, than the journal.")
    if _fingerprint(folder / "model.safetensors") != last:
        result.wrong.append("model.safetensors is not the model of the last round.")


def _fingerprint(path: Path) -> str | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from quire.clients.arrays import fingerprint

    try:
        return fingerprint(load_file(path))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _check_card(
    folder: Path, card: Mapping[str, Any], material: Material, about: Mapping[str, Any], result: Verification
) -> str | None:
    derived = run_card(material)
    result.wrong += [f"The card: {words}." for words in differences(card, derived, "card")]
    if result.wrong:
        return None
    shown = _text(folder / PAGE_FILE)
    if shown != page(card):
        where = result.notes if about.get("status") == "running" else result.wrong
        where.append(f"{PAGE_FILE} is not the page of the card.")
    here = "the code installed here" if about.get("code") == code_hash() else "other code than is installed here"
    result.notes.append(f"Code: {about.get('code')}, {here}.")
    return str(derived["verdict"])


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise CardError(f"{path.name} is not JSON.") from None
    if not isinstance(found, dict):
        raise CardError(f"{path.name} is not what a run writes.")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_CARD:
            raise CardError(f"{path.name} is larger than any that a run writes.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CardError(f"{path.name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise CardError(f"{path.name} is not text.") from None
