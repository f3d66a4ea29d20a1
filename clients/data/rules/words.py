"""Words in the names of columns, in English, German and French, and which kind of column they speak for.

Written in lower case without accents. A phrase of several words has to stand in the name as a whole; one word of five
letters or more also counts at the end of a longer one, as German puts them together (``aufnahmedatum``).
"""

from __future__ import annotations

import re
import unicodedata

DIRECT, QUASI, SENSITIVE, DATE = "direct", "quasi", "sensitive", "date"
GEOGRAPHIC, TECHNICAL, TEXT, PLAIN = "geographic", "technical", "text", "plain"

_DIRECT = """
name, surname, forename, firstname, lastname, fullname, maiden name, username, login, email, e mail, mail, phone,
telephone, tel, mobile, cell phone, fax, ssn, social security, passport, driving licence, drivers license, licence
plate, license plate, iban, account number, account no, credit card, card number, mrn, medical record number, nhs
number, national insurance, insurance number, tax id, tax number, patient id, patient no, patient number, person id,
subject id, customer id, customer number, client id, employee id, member id, user id, address, street, signature,
fingerprint, photo, vorname, nachname, familienname, zuname, geburtsname, rufname, anschrift, adresse, strasse,
hausnummer, telefon, telefonnummer, handy, handynummer, mobilnummer, sozialversicherungsnummer, svnr, steuernummer,
steuerid, steuer id, ausweisnummer, personalausweis, reisepass, versichertennummer, versicherungsnummer, kvnr,
kontonummer, patientennummer, patienten id, patientenid, patienten nr, fallnummer, kundennummer, kunden id, kunden
nr, personalnummer, mitarbeiternummer, kennzeichen, benutzername, unterschrift, nom, prenom, courriel, rue,
portable, securite sociale, nir, numero fiscal, carte d identite, passeport, permis de conduire, numero de compte,
numero patient, numero client, id patient, id client, identifiant patient, ipp, immatriculation
"""
_QUASI = """
age, sex, gender, year of birth, birth year, yob, marital, marital status, marriage, education, schooling, degree,
occupation, job, job title, profession, employer, language, nationality, citizenship, children, household,
dependents, alter, geschlecht, anrede, familienstand, bildung, schulabschluss, ausbildung, beruf, arbeitgeber,
sprache, muttersprache, staatsangehorigkeit, nationalitat, kinder, geburtsjahr, haushalt, sexe, genre, civilite,
situation familiale, etat civil, etudes, diplome, metier, employeur, langue, nationalite, enfants, annee de
naissance
"""
_SENSITIVE = """
diagnosis, diagnoses, diagnostic, icd, disease, illness, disorder, comorbidity, hiv, aids, cancer, depression,
pregnant, pregnancy, abortion, medication, drug, prescription, treatment, therapy, genotype, mutation, dna,
religion, faith, ethnicity, ethnic, race, political, trade union, sexual orientation, criminal, conviction, offence,
disability, income, salary, wage, wages, pay, payment, bill, balance, bal, debt, loan, credit, default, bankruptcy,
arrears, amount, amt, pension, benefits, death, died, deceased, mortality, readmission, readmitted, smoker, smoking,
krankheit, erkrankung, diagnose, diagnosen, befund, behandlung, therapie, medikament, medikation, rezept,
konfession, herkunft, ethnie, schwanger, schwangerschaft, behinderung, einkommen, gehalt, lohn, schulden, kredit,
darlehen, zahlung, rechnung, betrag, saldo, kontostand, rente, vorstrafen, partei, gewerkschaft, verstorben,
todesursache, raucher, maladie, pathologie, traitement, medicament, ordonnance, origine, grossesse, enceinte,
handicap, revenu, revenus, salaire, dette, pret, paiement, facture, montant, solde, retraite, casier judiciaire,
parti, syndicat, deces, fumeur
"""
_DATE = """
date, datetime, timestamp, dob, birthdate, birthday, day of birth, created at, updated at, datum, geburtstag,
zeitpunkt, zeitstempel, horodatage, naissance, jour
"""
_GEOGRAPHIC = """
zip, zipcode, postcode, postal, postal code, city, town, village, county, state, province, region, district,
country, municipality, birthplace, latitude, lat, longitude, lng, lon, gps, coordinates, location, plz,
postleitzahl, ort, wohnort, geburtsort, stadt, gemeinde, kreis, landkreis, bundesland, land, breitengrad,
langengrad, standort, code postal, ville, commune, departement, pays, lieu
"""
_TECHNICAL = """
id, uuid, guid, index, idx, row, rowid, row id, record id, seq, sequence, hash, checksum, session, session id,
device id, sensor id, run id, unnamed, lfd nr, laufende nummer, zeile, satznummer, kennung, ligne, identifiant
"""
_TEXT = """
comment, comments, remark, remarks, note, notes, free text, freetext, description, narrative, anamnesis, letter,
freitext, bemerkung, bemerkungen, kommentar, notiz, notizen, beschreibung, anamnese, arztbrief, commentaire,
commentaires, remarque, remarques, texte libre, compte rendu
"""
#: Words that speak of people only in a table about people: wine has alcohol too.
ABOUT_PEOPLE = frozenset({"alcohol", "alkohol", "alcool", "outcome", "survival", "stage"})

_LATER = 5  # letters from which on a word counts at the end of another


def _listed(text: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in text.split(","))


#: Names of things that are no people: `file name` is none of anybody.
_THINGS = _listed(
    "file, product, brand, model, column, test, company, table, variable, feature, ward, station, hospital, drug, "
    "gene, diagnosis, symptom, device, datei, produkt, marke, spalte, firma, fichier, produit, marque, colonne"
)
#: What a column that is learned is often called.
TARGETS = _listed("target, class, label, outcome, y, response, ziel, klasse, zielvariable, cible, classe, reponse")
WORDS = {
    DIRECT: _listed(_DIRECT),
    SENSITIVE: _listed(_SENSITIVE),
    QUASI: _listed(_QUASI),
    DATE: _listed(_DATE),
    GEOGRAPHIC: _listed(_GEOGRAPHIC),
    TEXT: _listed(_TEXT),
    TECHNICAL: _listed(_TECHNICAL),
}


def words_of(name: str) -> list[str]:
    """Return the words of a column's name: ``PatientenName_2`` is ``patienten``, ``name``, ``2``."""
    split = re.sub(r"(?<=[a-zß-ÿ0-9])(?=[A-ZÀ-Þ])", " ", name)
    plain = unicodedata.normalize("NFKD", split.casefold())
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.findall(r"[a-z]+|[0-9]+", letters)


def spoken_for(name: str) -> list[tuple[str, str, float]]:
    """Return which kinds a column's name speaks for: kind, the word that says so, and how sure that makes.

    The more of the name a phrase accounts for, the surer.
    """
    words = [word for word in words_of(name) if not word.isdigit()]
    found = []
    for kind, phrases in WORDS.items():
        best: tuple[float, str] | None = None
        for length in range(min(len(words), 4), 0, -1):
            for start in range(len(words) - length + 1):
                phrase = " ".join(words[start : start + length])
                if phrase in phrases:
                    best = max(best or (0.0, ""), (0.7 + 0.2 * length / len(words), phrase))
        if best is None:
            ends = [(word, known) for word in words for known in phrases if _ends(word, known)]
            best = max(((0.7, known) for _, known in ends), key=lambda one: len(one[1]), default=None)
        if best is not None and not (kind == DIRECT and best[1] in ("name", "nom") and _THINGS & set(words)):
            found.append((kind, best[1], best[0]))
    return found


def _ends(word: str, known: str) -> bool:
    return " " not in known and len(known) >= _LATER and len(word) > len(known) and word.endswith(known)
