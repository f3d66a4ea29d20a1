"""The privacy card as a page: one file that needs nothing else, readable by those who do not read JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from quire.strategies.card_noise import KEY

_HEADINGS = {
    "protects": "What is protected",
    "trusted": "Who is trusted",
    "sees": "Who sees what",
    "not_protected": "What is not protected",
    "mechanism": "How",
    "signatures": "Who vouches for it",
}
_TITLES = {
    "none": "No privacy guarantee",
    "simulation": "A simulation: invalid as a guarantee",
    "test": "A test: invalid as a guarantee",
    "stated": "Differential privacy, as stated",
}
_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6472;--paper:#fbfaf7;--card:#fff;--line:#dcd9d0;--good:#1c6b4a;
--goodbg:#e6f2ec;--warn:#8a4b08;--warnbg:#fbf0dd;--bad:#9c2424;--badbg:#fae6e3}
@media(prefers-color-scheme:dark){:root{--ink:#e7e5df;--soft:#a5abb5;--paper:#15181d;--card:#1c2027;--line:#353b45;
--good:#7fd1a8;--goodbg:#17342a;--warn:#f0bd74;--warnbg:#3a2c14;--bad:#f2a099;--badbg:#401f1d}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:940px;margin:0 auto;padding:36px 22px 60px}.kicker{color:var(--soft);font-size:.9rem}
.kicker span::before{content:"\\00b7";margin:0 .5em}h1{font-size:1.7rem;line-height:1.25;margin:.35em 0 .6em}
h2{font-size:1.15rem;margin:0 0 .4em}section{margin-top:30px}ul{margin:0;padding-left:1.15em}li{margin:.3em 0}
.verdict{border-left:5px solid;border-radius:6px;padding:14px 18px;font-size:1.08rem;margin:0}
.stated{border-color:var(--good);background:var(--goodbg)}.simulation,.test{border-color:var(--warn);background:var(--warnbg)}
.none{border-color:var(--bad);background:var(--badbg)}.muted{color:var(--soft);font-size:.92rem}
.two{columns:2 340px;column-gap:14px}.two .box{break-inside:avoid;margin-bottom:14px}
.box{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px 18px}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 9px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 16px;margin:0;font-size:.92rem}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}code{font-size:.86em}
"""


def _enclaves(card: Mapping[str, Any]) -> str:
    """Return what is said of enclaves; the banner as loud as a verdict."""
    if (found := card.get("enclaves")) is None:
        return ""
    loud = f'<p class="verdict none">{_text(found["banner"])}</p>' if found["banner"] else ""
    rest = [text for text in found["words"] if text != found["banner"]]
    return f"<section>{loud}{f'<h2>Enclaves</h2>{_list(rest)}' if rest else ''}</section>"


def page(card: Mapping[str, Any]) -> str:
    """Return the page of a card.

    Parameters
    ----------
    card : mapping
        As :func:`quire.strategies.card.run_card` returns it. The same card gives the same page.
    """
    run, silos = card["run"], card["silos"]
    kicker = "".join(f"<span>{_text(run[key])}</span>" for key in ("task", "strategy", "privacy", "aggregation"))
    boxes = "".join(
        f'<div class="box"><h2>{heading}</h2>{_list(card["words"][key])}</div>' for key, heading in _HEADINGS.items()
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>Privacy card: {_text(run['task'])}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            f'<div class="kicker"><b>Quire</b> privacy card{kicker}</div>',
            f"<h1>{_TITLES[card['standing']]}</h1>",
            f'<p class="verdict {card["standing"]}">{_text(card["verdict"])}</p>',
            f'<p class="muted">{_text(card["coverage"])}</p>',
            _enclaves(card),
            f"<section><h2>Silo by silo</h2>{_silos(silos)}</section>",
            f'<section class="two">{boxes}</section>',
            f"<section><h2>How each silo was noised</h2>{_mechanisms(silos)}</section>",
            _shared(card),
            f"<section><h2>At several deltas</h2>{_deltas(silos)}</section>",
            _ledgers(silos),
            f'<section class="box"><h2>Which run</h2>{_facts(run)}</section>',
            '<p class="muted">Recompute every figure, and check every signature, offline: '
            "<code>quire verify</code> and the folder of this run.</p>",
            "</main>\n</body>\n</html>\n",
        ]
    )


def _silos(silos: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            silo["statement"]["silo"],
            _number(silo["figures"]["rdp"]),
            _number(silo["figures"]["pld"]),
            f"{silo['statement']['delta']:g}",
            _number(silo["statement"]["epsilon"]),
            f"{silo['rounds']['released']} of {silo['rounds']['asked']}",
            _number(silo["if_all_asked"]["rdp"]),
        ]
        for silo in silos
    ]
    head = ["Silo", "Epsilon (RDP)", "tight (PLD)", "at delta", "Target", "Rounds", "Epsilon of all asked"]
    if all("if_alone" in silo for silo in silos):
        head.append("If all others lie")
        rows = [[*row, _number(silo["if_alone"]["rdp"])] for row, silo in zip(rows, silos, strict=True)]
    return _table(head, rows)


def _shared(card: Mapping[str, Any]) -> str:
    """Return the numbers of distributed noise; nothing without it."""
    part = card.get(KEY)
    if part is None:
        return ""
    noise, encoding, probes = part["noise"], part["encoding"], part["probes"]
    ratio = "not looked at" if probes["ratio"] is None else f"{probes['ratio']:.4g} of the promised variance"
    rows = {
        "Mechanism": "distributed discrete Gaussian, a share from every silo",
        "On the roster (n), may side with the server (c)": f"{noise['members']}, {noise['colluders']}",
        "Shares that an observer may know or miss (c_dp = c + 1)": part["known_shares"],
        "Fewest in a sum (U_min), shares that carry the noise": f"{noise['min_survivors']}, {part['shares']}",
        "Noise multiplier of the run (z)": f"{noise['noise_multiplier']:.6g}",
        "Sampling rate (q), rounds": f"{noise['sampling_rate']:g}, {noise['rounds']}",
        "Divided by (public)": f"{noise['denominator']:.6g}",
        "Sensitivity of the integers, squared (Delta2)": encoding["delta2_squared"],
        "Variance of a share, in integers (sigma_c squared)": encoding["noise_variance"],
        "Bits of a coordinate, numbers, probes": f"{encoding['bits']}, {encoding['dimension']}, {encoding['probes']}",
        f"Noise seen by the probes, over {probes['rounds']} rounds": ratio,
    }
    facts = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in rows.items())
    return f'<section class="box"><h2>The noise that the silos share</h2><dl>{facts}</dl></section>'


def _mechanisms(silos: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            silo["statement"]["silo"],
            str(silo["declared_records"]),
            f"{silo['statement']['clip']:g}",
            f"{silo['statement']['noise_multiplier']:.4g}",
            f"{silo['statement']['sampling_rate']:.4g}",
            str(silo["statement"]["steps"]),
            "untold" if silo["broken_gradients"] is None else str(silo["broken_gradients"]),
            "yes" if silo["guarded"] else "no",
        ]
        for silo in silos
    ]
    head = (
        "Silo",
        "Declared records",
        "Clip",
        "Noise multiplier",
        "Sampling rate",
        "Noisy steps",
        "Broken",
        "Gate",
    )
    return _table(head, rows)


def _deltas(silos: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [silo["statement"]["silo"], f"{row['delta']:g}", _number(row["rdp"]), _number(row["pld"])]
        for silo in silos
        for row in silo["figures"]["at"]
    ]
    return _table(("Silo", "Delta", "Epsilon (RDP)", "tight (PLD)"), rows)


def _ledgers(silos: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [
            silo["statement"]["silo"],
            silo["population"],
            _number(silo["ledger"]["epsilon"]),
            f"{silo['ledger']['delta']:g}",
            str(silo["ledger"]["entries"]),
            f"{silo['ledger']['head'][:16]}",
        ]
        for silo in silos
        if silo["ledger"] is not None
    ]
    if not rows:
        return ""
    head = ("Silo", "Population", "Epsilon of a record, this run", "at delta", "Entries", "Head")
    return f"<section><h2>What the silos' ledgers say</h2>{_table(head, rows)}</section>"


def _facts(run: Mapping[str, Any]) -> str:
    facts = {
        "Settings (SHA-256)": run["settings"],
        "Code (SHA-256)": run["code"],
        "Model (SHA-256)": run["model"],
        "Roster": run["roster"] or "none",
    }
    if charter := run.get("charter"):
        version = run.get("charter_version")
        facts["Charter (SHA-256)"] = f"{charter}{'' if version is None else f', version {version}'}"
    return (
        "<dl>"
        + "".join(f"<dt>{key}</dt><dd><code>{_text(value)}</code></dd>" for key, value in facts.items())
        + ("</dl>")
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f'<th scope="col">{_text(text)}</th>' for text in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences) + "</ul>"


def _number(value: float | str) -> str:
    return "infinite" if isinstance(value, str) else f"{value:.3g}"


def _text(value: object) -> str:
    return escape(str(value))
