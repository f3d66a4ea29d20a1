"""Runs that keep transcripts: how to ask for them, and what is said of them."""

from quire.simulation.verify_transcripts import audit_run

KEEP = "aggregation=secure output.transcripts=true"


def held(folder):
    return sorted(path.name for path in (folder / "transcripts").iterdir())


def wrong(folder):
    return "\n".join(audit_run(folder).wrong)
