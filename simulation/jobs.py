"""One job of a sweep, in whichever process the launcher runs it.

What became of it is written into ``job.json`` in the job's folder: the parent process reads it there, whatever the
launcher. Imports little, so that a worker process is at once out of the reach of Ctrl-C, which is the parent's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from quire.errors import Interrupted, QuireError

#: Environment variable that holds the process id of the sweep.
SWEEP_VARIABLE = "QUIRE_SWEEP"
JOB_FILE = "job.json"


def run_job(_: object) -> float | None:
    """Run the job that Hydra has configured.

    Returns
    -------
    float or None
        The score on validation rows, the greater the better, for sweepers that search; None where there is none.
    """
    from hydra.core.hydra_config import HydraConfig

    worker = os.environ.get(SWEEP_VARIABLE) != str(os.getpid())
    if worker:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    from rich.console import Console

    from quire.conf.compose import compose
    from quire.simulation.hydra_main import quoted
    from quire.simulation.launch import check_folder, launch

    config = HydraConfig.get()
    overrides = [quoted(item) for item in config.overrides.task]
    folder = Path(config.runtime.output_dir)
    check_folder(folder)
    record: dict[str, Any] = {"job": config.job.num, "overrides": overrides, "pid": os.getpid()}
    record |= {"status": None, "error": None, "seconds": None}
    write_record(folder, record)
    started = time.perf_counter()
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            console = Console(file=nowhere) if worker else Console()
            console.rule(f"job {config.job.num}: {' '.join(overrides) or 'defaults'}", align="left")
            launch(compose(" ".join(overrides)), folder, console)
        record["status"] = 0
    except (QuireError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
        record["status"] = error.exit_code if isinstance(error, QuireError) else Interrupted.exit_code
        record["error"] = str(error) or "interrupted."
        if not worker:
            sys.stderr.write(f"quire: {record['error']}\n")
            if interrupted:
                raise SystemExit(Interrupted.exit_code) from None
    finally:
        write_record(folder, record | {"seconds": time.perf_counter() - started})
    return objective(folder) if record["status"] == 0 else None


def objective(folder: Path) -> float | None:
    """Return a run's last score on validation rows, the greater the better; None where it has none."""
    from quire.simulation.report_data import read_run
    from quire.simulation.sweep_data import last_scores, leading_metric, lower_is_better

    scores = last_scores(read_run(folder), "validation")
    metric = leading_metric([scores])
    if metric is None:
        return None
    return -scores[metric] if lower_is_better(metric) else scores[metric]


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write ``job.json`` so that a reader finds the old content or the new."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{JOB_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    os.replace(temporary, folder / JOB_FILE)
