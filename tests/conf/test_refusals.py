"""Bad settings: each is refused in one clear sentence that says what, where and what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quire.conf.compose import compose
from quire.errors import SettingsError

REFUSED = [
    ("foo=1", ["'foo'", "settings begin with task, data"]),
    ("lr=1", ["'lr'", "perhaps training.lr"]),
    ("rounds=3", ["'rounds'", "perhaps strategy.rounds"]),
    ("taks=synthetic", ["'taks'", "perhaps task"]),
    ("seed.x=1", ["'seed.x'", "perhaps seed"]),
    ("overrides=x", ["no setting 'overrides'"]),
    ("task=brest_cancer", ["task=brest_cancer", "choose one of breast_cancer, digits"]),
    ("task=null", ["task=null", "choose one of"]),
    ("task=1", ["task=1", "choose one of"]),
    ("task=true", ["task=true", "choose one of"]),
    ("task=[synthetic]", ["task=[synthetic]", "choose one of"]),
    ("task=''", ["task=''", "choose one of"]),
    ("privacy=null", ["privacy=null", "choose one of none"]),
    ("task=../data/sklearn", ["task=../data/sklearn", "choose one of"]),
    ("strategy=/etc/passwd", ["strategy=/etc/passwd", "choose one of"]),
    ("task=breast_cancer.yaml", ["choose one of"]),
    ("task=" + "x" * 8000, ["task=xxx", "...", "choose one of"]),
    ("task.name=synthetic", ["'task.name'", "task=NAME"]),
    ("strategy.name=fedprox", ["'strategy.name'", "strategy=NAME"]),
    ("task.naem=1", ["'task.naem'", "task=breast_cancer", "task.model, task.hidden"]),
    ("task.model.x=1", ["'task.model.x'"]),
    ("training.lrr=1", ["'training.lrr'", "training=sgd", "perhaps training.lr"]),
    ("strategy.mu=1", ["'strategy.mu'", "strategy=fedavg", "strategy=fedprox would have it"]),
    ("data.rows=5", ["'data.rows'", "data=sklearn", "data=synthetic would have it"]),
    (
        "privacy.epsilon=2",
        ["'privacy.epsilon'", "privacy=none", "privacy=record, privacy=silo, ", "_distributed would have it"],
    ),
    ("aggregation.epsilon=2", ["'aggregation.epsilon'", "aggregation=plain", "has none"]),
    ("seed=x", ["seed must be a whole number", "'x'"]),
    ("seed=1.0", ["seed must be a whole number", "'1.0'"]),
    ("seed=true", ["seed must be a whole number", "'true'"]),
    ("seed=null", ["seed must be a whole number", "'null'"]),
    ("seed=-1", ["seed must be at least 0", "'-1'"]),
    ("seed=9223372036854775808", ["less than 9223372036854775808"]),
    ("seed=" + "9" * 5000, ["'seed'", "more than 19 digits"]),
    ("training.lr=abc", ["training.lr must be a number", "'abc'"]),
    ("training.lr=-1", ["training.lr must be greater than 0", "'-1.0'"]),
    ("training.lr=0", ["training.lr must be greater than 0"]),
    ("training.lr=1e999", ["training.lr must be a finite number", "'inf'"]),
    ("training.lr=nan", ["training.lr must be a finite number", "'nan'"]),
    ("training.lr=", ["'training.lr'", "nothing"]),
    ("strategy.fraction=0", ["strategy.fraction must be greater than 0 and at most 1", "'0.0'"]),
    ("strategy.fraction=1.01", ["strategy.fraction must be greater than 0 and at most 1", "'1.01'"]),
    ("strategy.rounds=1000001", ["strategy.rounds must be at least 1 and at most 1000000"]),
    ("task.hidden=5", ["task.hidden must be a list", "task.hidden=[1,2]"]),
    ("task.hidden=[8,a]", ["an entry of task.hidden must be a whole number", "'a'"]),
    ("task.hidden=[8,0]", ["an entry of task.hidden must be at least 1"]),
    (f"task.hidden=[{','.join('1' * 17)}]", ["task.hidden must have at most 16 entries, not 17"]),
    ("task.model=mlp task.hidden=[]", ["task.model=mlp", "task.hidden"]),
    ("task.model=tree", ["task.model must be one of logistic, mlp", "'tree'"]),
    ("task.silo_label='<b>'", ["task.silo_label must be a word", "'<b>'"]),
    ("task.silo_label=../x", ["task.silo_label must be a word"]),
    (f"task.silo_label={'a' * 33}", ["task.silo_label must be a word"]),
    ("task.silo_label=''", ["task.silo_label must be a word"]),
    ("output.report=1", ["output.report must be true or false", "'1'"]),
    ("output.progress=loud", ["output.progress must be one of auto", "'loud'"]),
    ("partition.silos=1", ["partition.silos=1", "strategy.min_silos=2", "add silos or lower the minimum"]),
    ("strategy.min_silos=6", ["partition.silos=5", "strategy.min_silos=6"]),
    ("strategy.fraction=0.3", ["strategy.fraction=0.3", "asks 1 to train", "raise the fraction"]),
    ("partition.silos=57", ["data=sklearn has 569 rows", "partition.silos=57", "fewer silos"]),
    ("partition=iid partition.silos=285", ["569 rows", "partition.silos=285"]),
    ("task=synthetic data.rows=199", ["199 rows", "partition.silos=100"]),
    ("task=synthetic data.rows=100000000 data.features=784", ["data.rows=100000000", "lower one"]),
    ("task=synthetic data.rows=100000 data.classes=100000 data.features=2001", ["data.features=2001", "lower one"]),
    ("task=synthetic data.rows=6000 data.classes=100000", ["data.classes=100000", "more than data.rows=6000"]),
    ("training.steps=-1", ["training.steps must be at least 0"]),
    ("training.steps=5 training.epochs=3", ["training.epochs=3 and training.steps=5", "set one of them"]),
    ("task=tabular training.epochs=2 training.steps=5", ["training.epochs=2 and training.steps=5"]),
    ("data=synthetic", ["task=breast_cancer", "data=synthetic"]),
    ("data=files", ["task=breast_cancer", "data=files"]),
    ("data.dataset=digits", ["task=breast_cancer", "data.dataset=digits"]),
    ("task=tabular data=sklearn", ["task=tabular", "data=sklearn"]),
    ("task=tabular partition=iid", ["data=files", "partition=iid"]),
    ("partition=natural", ["data=sklearn", "partition=natural"]),
    ("task=diabetes partition=dirichlet", ["partition=dirichlet", "take iid or shards"]),
    ("task=diabetes task.model=logistic", ["task.model=logistic", "take linear or mlp"]),
    ("task.model=plugin", ["task.model=plugin and task.plugin=NAME go together"]),
    ("task=plugin", ["task=plugin takes model, loss and metrics from a plug-in", "name it with task.plugin=NAME"]),
    ("task=plugin task.plugin=mine task.model=mlp", ["task=plugin", "leave task.model out"]),
    ("task=plugin task.plugin=mine data=sklearn", ["task=plugin cannot be learned from data=sklearn"]),
    ("task.plugin=mine", ["task.model=plugin and task.plugin=NAME go together"]),
    ("task.model=plugin task.plugin='os.system'", ["task.plugin must be a word"]),
    ("task.model=cnn", ["task.model=cnn", "task=breast_cancer does not have"]),
    ("task=synthetic task.model=cnn data.features=783", ["task.model=cnn", "data.features=783 is no square"]),
    ("task=images data.preprocessing=federated", ["data.preprocessing=federated", "images"]),
    ("data.preprocessing=private", ["data.preprocessing must be one of public, per_silo, federated"]),
    # Where a silo's rows are is never said by the settings.
    ("silos=/etc", ["'silos'"]),
    ("task=tabular data.path=/etc/passwd", ["'data.path'"]),
    ("task=tabular data.url='sqlite:///x'", ["'data.url'"]),
    ("task=tabular data.connector=sql", ["'data.connector'"]),
    ("task=tabular data.silos=/etc", ["'data.silos'"]),
    ("task=tabular partition.silos=/etc", ["partition.silos must be a whole number"]),
    ("task=synthetic data=sklearn", ["task=synthetic", "data=sklearn"]),
    ("runtime=flower runtime.faults=[]", ["'runtime.faults'", "runtime=inline and runtime=batched would have it"]),
    ("runtime.faults=x", ["runtime.faults must be a list"]),
    ("runtime.faults=[1]", ["an entry of runtime.faults must be a word"]),
    ("runtime.faults=[x]", ["runtime.faults: 'x'", "drop:STAGE:ROUND:SILO"]),
    ("runtime.faults=[drop:train:1]", ["'drop:train:1'"]),
    ("runtime.faults=['drop:train:1:']", ["'drop:train:1:'"]),
    ("runtime.faults=[drop:train:1:a:5]", ["'drop:train:1:a:5'"]),
    ("runtime.faults=[delay:train:1:a]", ["'delay:train:1:a'"]),
    ("runtime.faults=[drop:sleep:1:a]", ["names the stage 'sleep'", "query, train, evaluate"]),
    ("runtime.faults=[drop:train:one:a]", ["names the round 'one'"]),
    ("runtime.faults=[drop:train:-1:a]", ["names the round '-1'"]),
    (f"runtime.faults=[drop:train:{'9' * 5000}:a]", ["names the round '999"]),
    *(
        (f"runtime.faults=[delay:train:1:a:{seconds}]", [f"delays by '{seconds}'", "write seconds"])
        for seconds in ("x", "-1", "inf", "nan", "1e5", "1_0", "86400.5", "999999999999")
    ),
    ("hydra.run.dir=/tmp", ["'hydra.run.dir'", "belongs to the launcher"]),
    ("+task.x=1", ["'+task.x=1'", "key=value"]),
    ("~task", ["'~task'", "key=value"]),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[:50] for text, _ in REFUSED])
def test_refused_in_one_clear_sentence(text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        compose(text)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert message.isprintable()
    assert message.endswith(".")
    assert not re.search(r"[.?!] [A-Z]", message), "more than one sentence"
    assert len(message) <= 300
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("thing", [None, 5, 1.5, True, b"seed=1", ["seed=1"], {"seed": 1}, ("seed=1",)])
def test_what_is_not_a_string_is_refused(thing: Any) -> None:
    with pytest.raises(SettingsError, match="must be one string"):
        compose(thing)


def test_a_refusal_is_no_less_the_second_time() -> None:
    for _ in range(3):
        with pytest.raises(SettingsError, match=r"training\.lr must be greater than 0"):
            compose("training.lr=-1")
