"""What only people can answer: a YAML file with closed keys. What is left out is a gap in the document.

::

    controller: "Heart Research Ltd, 1 Main Street, Basel; privacy@heart.example"
    legal_basis: "Art. 6(1)(e) GDPR, with section 27 of the national act."
    recipients: ["The four hospitals of the consortium.", "Nobody else."]
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from quire.conf.strict_yaml import Entry, read_yaml
from quire.errors import DataError
from quire.reports.document import Standing, Statement, gap
from quire.reports.errors import ReportInput

#: Characters of a text, and texts of a list.
MAX_TEXT, MAX_LISTED = 4000, 50

#: Every key: what it is called in the document, and the question. Articles are those of Regulation (EU) 2016/679.
QUESTIONS: dict[str, tuple[str, str]] = {
    "controller": ("Controller", "Who is the controller: name, address, contact? Art. 30(1)(a)"),
    "joint_controllers": ("Joint controllers", "Who decides together with it, and by which arrangement? Art. 26"),
    "representative": (
        "Representative",
        "Who represents a controller outside the Union, if one is needed? Art. 27",
    ),
    "dpo": ("Data protection officer", "Who is the data protection officer, and how to reach them? Art. 37"),
    "processors": ("Processors", "Who processes on a controller's behalf, such as who runs the server? Art. 28"),
    "purpose": ("Purpose in the controller's words", "What is it all for? Art. 5(1)(b), 30(1)(b)"),
    "legal_basis": ("Legal basis", "Which legal basis, and why does it hold? Art. 6"),
    "special_categories": (
        "Special categories",
        "Are there data on health, genes, origin and the like, and which condition holds? Art. 9; or say none",
    ),
    "data_subjects": ("Categories of data subjects", "Whose data are they: patients, customers? Art. 30(1)(c)"),
    "data_categories": ("Categories of personal data", "Which kinds of data, in words? Art. 30(1)(c)"),
    "sources": ("Where the data come from", "Were they collected for this, or for something else? Art. 5(1)(b), 6(4)"),
    "necessity": ("Necessity", "Why can the purpose not be reached with less data, or with none? Art. 35(7)(b)"),
    "alternatives": ("Alternatives", "Which other ways were considered, and why were they not taken? Art. 35(7)(b)"),
    "recipients": ("Recipients", "Who receives the model, and anything else? Art. 30(1)(d)"),
    "transfers": ("Transfers", "Does anything go to third countries, and under which safeguards? Art. 30(1)(e), 44-49"),
    "retention": ("Time limits", "When are records, models, logs and books erased? Art. 30(1)(f)"),
    "security": ("Organisational measures", "Training, access, incidents, audits: what is done? Art. 30(1)(g), 32"),
    "information": ("How subjects are informed", "What are they told, when and where? Art. 13, 14"),
    "rights": ("How rights are exercised", "Access, objection, erasure: to whom, and by when? Art. 15-22"),
    "consultation": (
        "Views of data subjects",
        "Were subjects or their representatives asked, and what did they say? Art. 35(9); or say why not",
    ),
    "dpo_advice": ("Advice of the data protection officer", "What did the officer advise? Art. 35(2)"),
    "prior_consultation": ("Prior consultation", "Is the authority to be consulted, and was it? Art. 36"),
    "decision": ("Decision on the residual risk", "Who accepted which residual risk, and why? Art. 35(7)(d)"),
    "review": ("Review", "When and on what occasion is this looked at again? Art. 35(11)"),
}


@dataclass(frozen=True)
class Details:
    """What people answered.

    Attributes
    ----------
    answers : dict of str to tuple of str
        By key of :data:`QUESTIONS`.
    source : str
        What the document calls the file.
    """

    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "details"

    def statement(self, key: str) -> Statement:
        """Return the answer to a question, or the gap that there is."""
        title, question = QUESTIONS[key]
        if key in self.answers:
            return Statement(title, self.answers[key], self.source, Standing.DECLARED)
        return gap(title, f"'{key}' in the file of --details: {question}.")


def read_details(path: Path) -> Details:
    """Read the answers.

    Raises
    ------
    ReportInput
        If the file cannot be read, or says something that it cannot say.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ReportInput(f"There is no file '{path}' with answers: `quire report dpia --example-details` prints one.")
    try:
        found = read_yaml(path).mapping((), QUESTIONS)
        answers = {key: said for key, entry in found.items() if (said := _said(entry))}
    except DataError as error:
        raise ReportInput(str(error)) from error
    return Details(answers, f"details: {path.name}")


def _said(entry: Entry) -> tuple[str, ...]:
    if isinstance(entry.node, yaml.ScalarNode) and entry.scalar() is None:
        return ()
    entries = entry.items() if isinstance(entry.node, yaml.SequenceNode) else [entry]
    if len(entries) > MAX_LISTED:
        entry.fail(f"'{entry.key}' has more than {MAX_LISTED} entries")
    texts = tuple(unicodedata.normalize("NFC", " ".join(one.text().split())) for one in entries)
    for one, text in zip(entries, texts, strict=True):
        if not text:
            one.fail(f"'{entry.key}' is blank: leave it out, and it is a gap")
        if len(text) > MAX_TEXT:
            one.fail(f"'{entry.key}' has more than {MAX_TEXT} characters")
    return texts


def example() -> str:
    """Return a file of answers in which nothing is answered yet."""
    lines = [
        "# What only people can answer. A key without an answer is a gap in the document. A list is several answers."
    ]
    for key, (title, question) in QUESTIONS.items():
        lines += ["", f"# {title}. {question}", f"{key}:"]
    return "\n".join(lines) + "\n"
