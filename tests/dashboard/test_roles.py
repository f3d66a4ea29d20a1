"""Who sees what: every part of every page for every role, as the table in the documentation has it, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dashboard_places import AT_OPERATOR, AT_SILO, NOBODYS, operators, silos
from dashboards import browser, pages_of, snapshot

from quire.dashboard.roles import SIGHT, Part, Place, Role
from quire.dashboard.users import FOLDER, read_users
from quire.dashboard.views import Folder, overview, run_page

DOC = Path(__file__).resolve().parents[2] / "docs" / "dashboard.md"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[Place, Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        return {
            Place.CONSORTIUM: operators(tmp_path_factory.mktemp("o")),
            Place.SILO: silos(tmp_path_factory.mktemp("s")),
        }


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("place", [Place.CONSORTIUM, Place.SILO])
def test_a_role_sees_its_parts_and_no_others(places: dict[Place, Path], place: Place, role: Role) -> None:
    marks = AT_OPERATOR if place is Place.CONSORTIUM else AT_SILO
    user = browser(places[place], role)
    before = snapshot(places[place])
    pages = pages_of(user)
    text = "\n".join(pages.values())
    assert len(pages) == (4 if place is Place.CONSORTIUM else 1), pages.keys()
    assert {part for part, mark in marks.items() if mark in text} == SIGHT[place][role]
    secrets = [*NOBODYS, *(one.hash.hex() for one in read_users(places[place]).values()), str(places[place])]
    assert not [word for word in secrets if word in text]
    assert "Traceback" not in text
    assert 'class="trouble"' not in text
    # Neither do the drawings show what the tables do not, nor is anything handed to a template to be hidden by it.
    assert ('stroke="var(--alone)"' in text) == (Part.BY_SILO in SIGHT[place][role])
    folder = Folder.of(places[place])
    keys = {path.split("/")[2] for path in pages if path.startswith("/run/")}
    handed = repr([overview(folder, role), *(run_page(folder, role, key) for key in keys)])
    titles = {Part.LOG, Part.CERTIFICATE, Part.LINEAGE, Part.BUDGET}  # whose marks only the template has
    assert not [part for part, mark in marks.items() if part not in SIGHT[place][role] | titles and mark in handed]
    assert snapshot(places[place]) == before


@pytest.mark.parametrize("role", list(Role))
def test_a_folder_of_runs_has_the_same_pages_without_members(places: dict[Place, Path], role: Role) -> None:
    user = browser(places[Place.CONSORTIUM] / "runs", role)
    text = "\n".join(pages_of(user).values())
    shown = {part for part, mark in AT_OPERATOR.items() if mark in text}
    assert shown == SIGHT[Place.RUNS][role] == SIGHT[Place.CONSORTIUM][role] - {Part.MEMBERS, Part.INVITATIONS}


def test_every_part_has_a_mark_and_every_role_a_place() -> None:
    assert set(AT_OPERATOR) | set(AT_SILO) == set(Part)
    assert set(SIGHT) == set(Place)
    assert all(set(by_role) == set(Role) for by_role in SIGHT.values())


def test_the_documentation_has_the_table_in_force() -> None:
    """Rows of `| part | operator | member | auditor |`, below a heading for each place."""
    text = DOC.read_text(encoding="utf-8")
    titles = {"At the consortium's operator": Place.CONSORTIUM, "At a silo": Place.SILO}
    for title, place in titles.items():
        section = text.split(f"### {title}\n")[1].split("\n#")[0]
        rows = re.findall(r"^\| ([^|]+) \| (yes|no) \| (yes|no) \| (yes|no) \|$", section, flags=re.MULTILINE)
        told = {
            (part.strip(), role): said == "yes" for part, *rest in rows for role, said in zip(Role, rest, strict=True)
        }
        parts = set().union(*SIGHT[place].values())
        assert told == {(str(part), role): part in SIGHT[place][role] for part in parts for role in Role}


def test_the_users_folder_is_no_run(places: dict[Place, Path]) -> None:
    runs = places[Place.CONSORTIUM] / "runs"
    user = browser(runs, Role.OPERATOR)
    assert (runs / FOLDER).is_dir()
    assert "1 run," in user.ask("/").text
