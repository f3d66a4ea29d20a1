"""No string makes a silo read its environment, its disk, or code.

A silo composes a string that a server sent, and does not trust the server. While it composes, an audit hook sees
every event that Python reports (files, imports, exec, processes, sockets, ...) and a watch on ``os.environ`` sees
every variable that is read. Allowed is: opening the YAML files in conf/ and those inside Hydra.
"""

from __future__ import annotations

import itertools
import json
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compose_watch import ALLOWED, CANARY, Watch, watched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.conf import compose as composing
from quire.conf.overrides import MAX_LENGTH
from quire.conf.schema import GROUPS, Settings

ROOT = Path(__file__).resolve().parents[2]
BUSY = [HealthCheck.too_slow]


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    yield from watched()


def test_the_watch_sees_what_it_should(watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test of the tests: each forbidden act is noticed."""
    (tmp_path / "secret.yaml").write_text(CANARY)
    inside = f"{ALLOWED[0]}/../pyproject.toml"
    acts: list[Any] = [
        lambda: os.environ["QUIRE_CANARY"],
        lambda: os.getenv("QUIRE_CANARY"),
        lambda: os.environ.get("NO_SUCH_VARIABLE"),
        lambda: dict(os.environ),
        lambda: "QUIRE_CANARY" in os.environ,
        lambda: (tmp_path / "secret.yaml").read_text(),
        lambda: Path(inside).read_text(),
        lambda: os.listdir(tmp_path),
        lambda: list(tmp_path.glob("*")),
        lambda: eval("1 + 1"),
        lambda: compile("1", "x", "eval"),
        lambda: __import__("this_module_does_not_exist"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.system("true"),
    ]
    for act in acts:

        def look(text: str, act: Any = act) -> Any:
            try:
                return act()
            except (ImportError, KeyError):
                return None

        monkeypatch.setattr("compose_watch.compose", look)
        with pytest.raises(AssertionError, match="made the silo do"):
            watch.compose("")
    assert watch._may_open(f"{ALLOWED[0]}/config.yaml", "r", 0)
    assert not watch._may_open(f"{ALLOWED[0]}/config.yaml", "w", 0)
    assert not watch._may_open(f"{ALLOWED[0]}/compose.py", "r", 0)
    assert not watch._may_open(f"{ALLOWED[0]}-elsewhere/config.yaml", "r", 0)


# ------------------------------------------------------------------------------------------ written by hand
READERS_IN_ASCII = r"""
${oc.env:QUIRE_CANARY} ${oc.env:HOME,x} ${env:HOME} ${oc.decode:${oc.env:HOME}} ${oc.create:x} ${hydra:runtime.cwd}
${hydra.runtime.cwd} ${now:%Y} ${python_version:} ${task.name} ${.lr} ${..seed} $HOME $(id) `id` %HOME%
~/.ssh/id_rsa ~root ??? __import__('os').system('id') &a *a << os.system file:///etc/passwd pkg://os /etc/passwd
../../../../etc/passwd .. . / /dev/zero /dev/stdin /proc/self/environ CON synthetic.yaml ./synthetic
synthetic/../breast_cancer task/synthetic range(1,10) choice(1,2) glob(*) interval(0,1) str(1) int('1')
extend_list(1) {a:1} {_target_:os.system} [{_target_:os.system}] [[[1]]] 1,2,3 1e999 -1e999 nan inf
9223372036854775807 9223372036854775808 -9223372036854775809 0x10 1_000 null = == ' '"'
"""
READERS = [
    *READERS_IN_ASCII.split(),
    *(
        "\\${x}",
        "\\\\${x}",
        "$\\{x}",
        "\\x24{oc.env:HOME}",
        "\uff04{oc.env:HOME}",
        "$\uff5boc.env:HOME\uff5d",
        "!!python/object/apply:os.system [id]",
        "9" * 5000,
        "1e" + "9" * 400,
        "0." + "1" * 5000,
        "\u0661\u0662",
        "\uff11",
        "\u00b2",
        "\u2167",
        "\0",
        "a\0b",
        "'a\0b'",
        "a\nb",
        "a\r\nseed=2",
        "'a\nb'",
        "\x1b[31m",
        "\u202etxt",
        "\u200b",
        "\ufeff",
        "\ud800",
        "\U0001f600",
        "",
        '"',
        "a" * 9000,
    ),
]
KEYS_IN_ASCII = r"""
seed training.lr task.hidden task.silo_label task.model strategy.name runtime.faults output.progress data.dataset
_target_ task._target_ task._recursive_ task._args_ __class__ task.__class__ task.__init__.__globals__ self cls
defaults overrides hydra hydra.searchpath hydra.run.dir hydra.job.env_copy hydra.job.env_set.x
hydra.callbacks.x._target_ hydra.launcher._target_ hydra/launcher hydra/job_logging Hydra.run.dir +task ++task
+task.x ~task ~task.model task@data task@_global_ task@:data /task task/ ../task config task[0] task. .task
--config-dir --config-path -cd @file
"""
KEYS = [
    *GROUPS,
    *KEYS_IN_ASCII.split(),
    *("hydr\u0430.run.dir", "t\u0430sk", "\uff54ask", "override task", "override /task", ""),
]
WHOLE = [
    "~task",
    "~hydra",
    "--help",
    "--config-dir=/etc",
    "-m",
    "--",
    "@/etc/passwd",
    "task",
    "task=synthetic,breast_cancer",
    "seed=1 seed=1",
    "task=synthetic task=synthetic",
    "a=b=c",
    "task=synthetic;id",
    "task=synthetic|id",
    "task=synthetic&&id",
    "task=synthetic#x",
    "{task: synthetic}",
    "[task=synthetic]",
    "'task=synthetic'",
    "task='synthetic",
    "task=synthetic\0",
    "\0",
    " " * MAX_LENGTH,
    "\u3000" * 100,
    "x" * 1_000_000,
    "a=" + "[" * 1_000_000,
    "training.lr=" + "9" * 1_000_000,
    " " * 1_000_000,
    "\ud800" * 10,
    "training.lr=" + "9" * (MAX_LENGTH - 13) + "!",
]


def written_by_hand() -> list[str]:
    texts = list(WHOLE)
    for key, value in itertools.product(KEYS, READERS):
        texts.append(f"{key}={value}")
    for value in READERS:
        texts += [f"task.silo_label='{value}'", f'task.silo_label="{value}"', f"runtime.faults=['{value}']"]
        texts += [f"runtime.faults=[{value}]", f"runtime.faults=['drop:train:1:{value}']", value]
    for unit, start in itertools.product(
        [" ", "'", '"', "[", "]", ",", "''", "['", "a ", "a=b ", "a=[", "${", "}", ".", "a.", "9", "-", "\\", "1,"],
        ["", "a=", "task=", "a=[", "a='", "task.hidden=[", "runtime.faults=['", "training.lr="],
    ):
        texts.append((start + unit * MAX_LENGTH)[:MAX_LENGTH])
        texts.append((start + unit * MAX_LENGTH)[: MAX_LENGTH - 1] + "!")
    return texts


def test_what_an_attacker_would_write(watch: Watch) -> None:
    accepted = {text for text in written_by_hand() if isinstance(watch.compose(text), Settings)}
    # Some are innocent after all: words and numbers where words and numbers belong, which nothing will interpret.
    assert {text.partition("=")[0] for text in accepted if text.strip()} == {
        "seed",
        "task.silo_label",
        "training.lr",
        "runtime.faults",
    }
    for text in accepted:
        assert not set(text) & set("$`\\{}\0\x1b")
        assert text.isascii() or not text.strip()


# ------------------------------------------------------------------------------------------------ generated
NOISE = string.printable + "\0\u0661\uff11\u0430\u200b\u202e\ud800${}[]'\"=,+~@\\/.:_" * 2
noise = st.one_of(
    st.text(NOISE, max_size=40), st.text(max_size=40), st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
)
pieces = st.one_of(
    st.sampled_from(READERS),
    noise,
    st.sampled_from([option for options in GROUPS.values() for option in options]),
    st.floats().map(repr),
    st.integers().map(str),
    st.lists(st.sampled_from(["1", "a", "'b'", "null", "drop:train:1:a", "${x}", "[", "]"]), max_size=5).map(
        lambda parts: f"[{','.join(parts)}]"
    ),
)
quotes = st.sampled_from(["{}", "'{}'", '"{}"', "[{}]", "['{}']", "[1,{}]", "{}{{}}", "${{{}}}"])
items = st.builds(
    lambda key, sign, value, quote: f"{key}{sign}{quote.format(value)}",
    st.one_of(st.sampled_from(KEYS), noise),
    st.sampled_from(["=", "=", "=", "=", "==", "", " = ", ":", "+=", "@x="]),
    pieces,
    quotes,
)
good = st.sampled_from(["task=synthetic", "strategy=fedprox", "seed=3", "training.lr=0.2", "output.report=false", ""])
hostile = st.one_of(
    noise, st.lists(st.one_of(items, good), max_size=4).map(" ".join), st.lists(noise, max_size=4).map("=".join)
)


@settings(max_examples=2000, deadline=None, suppress_health_check=BUSY)
@given(hostile)
def test_what_a_machine_would_write(watch: Watch, text: str) -> None:
    result = watch.compose(text)
    if isinstance(result, Settings):
        assert watch.compose(result.overrides) == result


@settings(max_examples=300, deadline=None, suppress_health_check=BUSY)
@given(st.sampled_from(sorted(GROUPS)), pieces)
def test_no_option_outside_the_registry(watch: Watch, group: str, value: str) -> None:
    result = watch.compose(f"{group}={value}")
    if isinstance(result, Settings):
        assert type(getattr(result, group)) in GROUPS[group].values()
        assert getattr(result, group).name in GROUPS[group]


def test_every_choice_of_options_opens_only_our_files(watch: Watch) -> None:
    composing._compose.cache_clear()
    composing._load.cache_clear()
    for group, options in GROUPS.items():
        for option in options:
            watch.compose(f"{group}={option}")
    assert composing._load.cache_info().misses > 0


# ------------------------------------------------------------------------------------------ from a cold start
def test_a_refused_string_does_not_even_load_hydra() -> None:
    texts = [
        "training.lr=${oc.env:HOME}",
        "hydra.searchpath=[file:///etc]",
        "+a=b",
        "task=/etc/passwd",
        "a=" + "[" * 99,
    ]
    code = (
        "import sys, json\n"
        "from quire.conf.compose import compose\n"
        "from quire.errors import SettingsError\n"
        "import quire.conf.rules, difflib\n"
        "seen = []\n"
        "def hook(event, args):\n"
        "    if event in ('open', 'import', 'exec', 'compile', 'os.listdir', 'subprocess.Popen'):\n"
        "        seen.append((event, str(args[0])))\n"
        "refused = 0\n"
        "sys.addaudithook(hook)\n"
        f"for text in {texts!r}:\n"
        "    try:\n"
        "        compose(text)\n"
        "    except SettingsError:\n"
        "        refused += 1\n"
        "print(json.dumps([refused, seen[:5], 'hydra' in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [len(texts), [], False]
