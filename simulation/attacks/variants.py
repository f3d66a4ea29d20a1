"""One federation, run in clear, under masks and with noise, so that the same attack can be held against each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quire.conf.compose import compose
from quire.conf.overrides import Override, parse
from quire.conf.schema import GROUPS, Settings, SklearnData
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.attacks.tap import Seen, observe
from quire.simulation.silos import local_silos

#: Added to every run that is attacked: what no observer sees of it, and nothing that changes the model.
_QUIET = (
    "output.baselines=false output.report=false output.progress=none strategy.fraction_evaluate=0 runtime=inline "
    "tracking=none"
)
#: Rows that every party knows, so that an attacker can have them, and classes.
TASKS = ("digits", "breast_cancer")
_NO_TASK = "task={} is not attacked: take task=digits or task=breast_cancer, whose rows are public and have classes."
_EVERYWHERE = ("partition.silos", "strategy.rounds", "task.model")
_OURS = ("output", "tracking", "runtime", "strategy.fraction_evaluate")
_MODES = {"record": "aggregation=plain", "silo": "aggregation=plain"}


@dataclass(frozen=True)
class Variant:
    """One way to run the federation.

    Attributes
    ----------
    name : str
        ``plain``, ``secure``, or that of a privacy mode.
    overrides : str
        All that `quire run` is told.
    title : str
        What the server has of a round, in words.
    """

    name: str
    overrides: str
    title: str

    @property
    def private(self) -> bool:
        """Whether there is noise."""
        return self.name not in ("plain", "secure")

    def seeded(self, seed: int) -> str:
        """Return the overrides with another seed."""
        kept = [str(item) for item in parse(self.overrides) if item.key != "seed"]
        return " ".join([*kept, f"seed={seed}"])


_TITLES = {
    "plain": "plain updates",
    "secure": "the secure sum",
    "record": "noisy updates",
    "silo": "clipped updates; the noise is added at the server",
    "record_distributed": "the noisy sum",
    "silo_distributed": "the noisy sum",
}


def variants(given: Sequence[str], defaults: str) -> list[Variant]:
    """Return the runs that an attack is held against: plain, secure, and with noise.

    Parameters
    ----------
    given : sequence of str
        The user's overrides. With ``privacy=MODE`` that mode is the private run; without it there are two, with
        ``record`` and ``record_distributed`` at epsilon 1. ``aggregation=NAME`` is the private run's.
    defaults : str
        Settings that suit the attack, where the user has none.

    Raises
    ------
    SettingsError
        If they cannot be composed, or the data cannot be attacked.
    """
    asked = parse(" ".join(given))
    for item in asked:
        if item.key.partition(".")[0] in _OURS or item.key in _OURS:
            raise AttackInput(f"'{item.key}' is set by the attack itself: leave it out.")
        if item.key.partition(".")[0] == "compression" and item.value != "none":
            raise AttackInput("Compressed updates are not attacked: leave compression out.")
        if item.key.partition(".")[0] in ("attack", "suspicion") and item.value != "none":
            raise AttackInput(f"'{item.key}' is about silos that send bad updates, of which there are none here.")
        if item.key == "training.local_layers" or item.key.startswith("training.tuning_"):
            raise AttackInput(f"'{item.key}' is about what stays in a silo, which nobody here sees: leave it out.")
    chosen = {item.key: item for item in asked}
    task = chosen.get("task")
    if task is not None and task.value in GROUPS["task"] and task.value not in TASKS:
        raise AttackInput(_NO_TASK.format(task.value))
    privacy = [item for item in asked if item.key.startswith("privacy.")]
    masks = [item for item in asked if item.key.startswith("aggregation.")]
    if grouped := [item.key for item in masks if item.key.partition(".")[2] in ("groups", "byzantine", "combine")]:
        raise AttackInput(f"'{grouped[0]}' is about several sums, and what is attacked is one of all: leave it out.")
    mode = chosen.get("privacy")
    modes = ["record", "record_distributed"] if mode is None else [str(mode.value)]
    if modes == ["none"]:
        modes = []
        if privacy:
            raise AttackInput(f"'{privacy[0].key}' is for a run with noise, and privacy=none has none: leave it out.")
    if "aggregation" in chosen and (mode is None or not modes):
        raise AttackInput(
            f"aggregation={chosen['aggregation'].value} is for the run with noise, beside the one in clear and the one "
            "under masks: name its privacy=MODE as well, or leave it out."
        )
    base = _base(asked, parse(defaults))
    found = [
        Variant("plain", _joined(base, "privacy=none aggregation=plain"), _TITLES["plain"]),
        Variant("secure", _joined(base, *masks, "privacy=none aggregation=secure"), _TITLES["secure"]),
    ]
    for one in modes:
        own: list[object] = [*privacy, f"privacy={one}"]
        if "privacy.epsilon" not in chosen:
            own.append("privacy.epsilon=1")
        named = chosen.get("aggregation") if mode is not None else None
        under = f"aggregation={named.value}" if named is not None else _MODES.get(one, "aggregation=secure")
        own += [*masks, under] if under == "aggregation=secure" else [under]
        if one == "record_distributed" and "privacy.sampling_rate" not in chosen:
            own.append(f"privacy.sampling_rate={_rate(_joined(base, *own))}")
        title = _TITLES.get(one, one)
        if one == "record" and under == "aggregation=secure":
            title = "the sum of noisy updates"
        found.append(Variant(one, _joined(base, *own), title))
    for variant in found:
        check(compose(variant.overrides))
    return found


def check(settings: Settings) -> None:
    """Refuse settings whose runs no attack here can be held against.

    Raises
    ------
    AttackInput
    """
    if not isinstance(settings.data, SklearnData) or settings.task.name not in TASKS:
        raise AttackInput(_NO_TASK.format(settings.task.name))
    if settings.data.preprocessing != "public":
        raise AttackInput(f"data.preprocessing={settings.data.preprocessing} is not attacked: take public.")
    if settings.selftest:
        raise AttackInput("A self-test of the noise learns nothing, so there is nothing to attack: leave it out.")


def observed(variant: Variant, runs: int, seed: int, tell: Callable[[str], None]) -> Iterator[Seen]:
    """Run a variant with one seed after the other, and yield what was seen of each run.

    Parameters
    ----------
    variant : Variant
    runs : int
    seed : int
        Of the first run.
    tell : callable
        Is told in words what is done next.
    """
    for number in range(runs):
        tell(f"{variant.name}, run {number + 1} of {runs}")
        yield observe(variant.seeded(seed + number))


def facts(seen: Seen) -> dict[str, object]:
    """Return what the page says of a run's privacy, by its own card."""
    if seen.spent is None:
        return {"epsilon": None, "delta": None, "unit": None}
    return {"epsilon": seen.spent.epsilon, "delta": seen.spent.delta, "unit": seen.spent.unit}


def words(found: dict[str, object]) -> str:
    """Say what a run's card promises: an epsilon for each record or silo, or nothing."""
    if found["epsilon"] is None:
        return "no noise"
    return f"epsilon {found['epsilon']:.3g}, delta {found['delta']:.2g} per {found['unit']}"


def _base(asked: Sequence[Override], defaults: Sequence[Override]) -> list[Override]:
    own = [item for item in asked if item.key.partition(".")[0] not in ("privacy", "aggregation")]
    keys = {item.key for item in own}
    other_task = any(item.key == "task" and item.value != "digits" for item in own)
    # An option that the user chooses may lack what suits ours; of steps and epochs only one can be set.
    lost = {"training.epochs": "training.steps", "training.steps": "training.epochs"}
    kept = [
        item
        for item in defaults
        if item.key not in keys
        and lost.get(item.key) not in keys
        and (item.key in _EVERYWHERE or item.key.partition(".")[0] not in keys)
        and not (other_task and item.key == "task.model")
    ]
    return [*own, *kept]


def _joined(base: Sequence[Override], *more: object) -> str:
    return " ".join([*map(str, base), *map(str, more), _QUIET])


def _rate(overrides: str) -> float:
    """Return the sampling rate at which a silo's batch is as large, in the mean, as in the plain run."""
    settings = compose(overrides)
    check(settings)
    rows = sum(len(silo.train) for silo in local_silos(settings).data(settings))
    return round(min(1.0, settings.training.batch_size * settings.partition.silos / max(rows, 1)), 6)
