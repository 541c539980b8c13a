"""The evaluation set of the built-in detectors, and how each does on it.

All of it is written for this purpose; numbers are invented or published samples. Three sources:

- ``evaluation.txt``: lines of business mail, each with the detectors that should find something in it, and no other
- ``WRITTEN`` in ``CARRIERS``: every number in every form in every sentence
- ``NEAR_MISSES`` in the same sentences: what has the form but is none

    python -m tests.policy.detect.evaluation        writes the table into docs/reference/detectors.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gateway.policy.detect import BUILT_IN, Scan
from gateway.policy.facts import normal_text

PAGE = Path(__file__).parents[3] / "docs/reference/detectors.md"
LINES = Path(__file__).with_name("evaluation.txt")
JUDGED = tuple(name for name in BUILT_IN if name != "pci")

# {} stands for the number. What a carrier says may be context, so none of these may speak for another detector.
CARRIERS: Mapping[str, tuple[str, ...]] = {
    "us_ssn": (
        "Please update the file, SSN {}, before Friday.",
        "SSN: {}",
        "Employee social security number {} was mistyped on the W-2.",
        "soc. sec. no. {}",
        "Her SS# is {}; please confirm.",
        "Name: J. Roe\nSSN\n{}",
        "<ssn>{}</ssn>",
    ),
    "credit_card": (
        "Please charge {} for the deposit.",
        "Card number: {}",
        "My Visa is {} exp 12/29",
        "cc# {}, thanks",
        "The guest gave ({}) over the counter.",
        "{}",
        "card={};",
    ),
    "npi": (
        "NPI {}",
        "Rendering provider NPI: {}.",
        "npi#{}",
        "Dr. Roe's National Provider Identifier is {}, effective today.",
        "Billing provider {} (group)",
        "(NPI={})",
    ),
    "mbi": (
        "MBI {}",
        "Medicare number: {}.",
        "The beneficiary's new number is {} as of today.",
        "HICN/MBI: {}",
        "mbi={};",
    ),
    "dea": (
        "DEA {}",
        "DEA#: {}.",
        "The prescriber's DEA registration is {}, schedule II-V.",
        "dea no {}",
        "Rx pad with DEA number ({})",
    ),
    "icd10": (
        "ICD-10: {}",
        "Dx {} today",
        "Diagnosis code {}.",
        "The claim was coded {}, ICD-10-CM.",
        "Primary dx: ({})",
    ),
    "ndc": ("NDC {}", "NDC# {}.", "ndc code: {}", "Dispensed NDC {}, qty 30", "NDC: {} (bottle)"),
    "us_phone": ("Call me at {}", "Tel. {}.", "phone: {}", "Fax {} (main office)", "You can reach her on {}, thanks."),
    "us_bank_routing": (
        "Routing number {}",
        "ABA {}",
        "Bank routing no. {}.",
        "RTN: {} for direct deposit",
        "wire to {}",
    ),
    "iban": ("IBAN {}", "Please remit to {} today.", "{}", "Account: {}, BIC to follow", "iban={};"),
    "date_of_birth": (
        "DOB {}",
        "D.O.B.: {}",
        "Date of birth {}.",
        "She was born on {} in Ohio.",
        "DoB - {};",
        "birthdate: {}",
    ),
    "patient_id": (
        "MRN {}",
        "MRN: {}.",
        "Medical record number {}",
        "Member ID# {};",
        "patient id {} in the chart",
        "Chart no. {}",
    ),
    "patient_name": ("Patient: {}.", "Patient Name: {}", "our patient {} called", "Member name: {};", "Insured: {}"),
    "health_terms": ("{}", "About {}, as discussed.", "({})"),
    "phi": ("{}", "FYI: {}.", "Fwd: {} (see below)"),
}

WRITTEN: Mapping[str, tuple[str, ...]] = {
    "us_ssn": (
        "536-22-8726",
        "536 22 8726",
        "536228726",
        "536.22.8726",
        "536\u201122\u20118726",
        "536\u201322\u20138726",
        "536 - 22 - 8726",
        "\uff15\uff13\uff16-\uff12\uff12-\uff18\uff17\uff12\uff16",
        "536-\u200b22-\u200b8726",
        "001-01-0001",
        "772\u00a084\u00a01935",
        "899999999",
        "536-22-8726A",
        "4 0 1 2 7 5 8 8 3",
    ),
    "credit_card": (
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111111",
        "5555\u00a05555\u00a05555\u00a04444",
        "2223003122003222",
        "3782 822463 10005",
        "378282246310005",
        "6011-1111-1111-1117",
        "3056 930902 5904",
        "30569309025904",
        "3530 1113 3330 0000",
        "6200 0000 0000 0005",
        "5105\u20131051\u20130510\u20135100",
        "4111.1111.1111.1111",
        "4012 8888 8888 1881 123",
    ),
    "npi": (
        "1234567893",
        "1245319599",
        "1093718892",
        "1234-567-893",
        "1234 567 893",
        "2345678900",
        "1000000004",
        "1999999992",
        "1508765439",
        "2800011225",
    ),
    "mbi": (
        "1EG4-TE5-MK73",
        "1EG4TE5MK73",
        "1EG4 TE5 MK73",
        "1eg4-te5-mk72",
        "9AA9AA9AA99",
        "2W83\u2011YF4\u2011QP01",
        "7K00 - H00 - CD55",
        "8W77TV9HG87",
        "3et4fd8cy67",
        "8NT9-HV3\u2013MU01",
        "8KR8\u00a0D24\u00a0NJ84",
        "1DX1-\u200bQE4-QD00",
    ),
    "dea": (
        "AB1234563",
        "BS-1234563",
        "FJ 8765438",
        "M91234563",
        "ab1234563",
        "XR2468014",
        "PC0000101",
        "GZ9999991",
        "LH1357917",
        "mx-7007001",
        "A93100245",
        "BS1234563-001",
    ),
    "icd10": (
        "E11.9",
        "E119",
        "I10",
        "e11.9",
        "S72.001A",
        "Z3A.12",
        "F32.A",
        "C50",
        "U07.1",
        "M54.50",
        "j45.909",
        "T88.7XXA",
    ),
    "ndc": (
        "0002-8215-01",
        "12345-678-90",
        "12345-6789-0",
        "12345-6789-01",
        "00002821501",
        "0071-0155-23",
        "50090-0012-1",
        "68180-0513-01",
        "0002\u20118215\u201101",
        "68180051301",
        "0071015523",
        "55111-683-01",
    ),
    "us_phone": (
        "217-555-0143",
        "(217) 555-0143",
        "(217)555-0143",
        "217.555.0143",
        "217 555 0143",
        "2175550143",
        "+1 217 555 0143",
        "+12175550143",
        "1 (217) 555-0143",
        "1-800-555-0199",
        "(217) 555\u20110143",
    ),
    "us_bank_routing": (
        "021000021",
        "0210-0002-1",
        "011401533",
        "122105155",
        "322271627",
        "0710 0001 3",
        "061000104",
        "251073129",
        "322070381",
        "000000518",
        "312074494",
        "8000 0001 9",
    ),
    "iban": (
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "ES91 2100 0418 4502 0005 1332",
        "NO93 8601 1117 947",
        "ch9300762011623852957",
        "AT611904300234573201",
        "BE68 5390 0754 7034",
        "IT60 X054 2811 1010 0000 0123 456",
        "PL61-1090-1014-0000-0712-1981-2874",
        "NL91\u00a0ABNA\u00a00417\u00a01643\u00a000",
    ),
    "date_of_birth": (
        "01/02/1980",
        "1/2/80",
        "01-02-1980",
        "02.01.1980",
        "1980-02-01",
        "January 2, 1980",
        "Jan 2nd, 1980",
        "2 January 1980",
        "02-Jan-1980",
        "19800102",
    ),
    "patient_id": (
        "00123456",
        "1234567",
        "AB-1234567",
        "44-55-66-77",
        "A1234567",
        "W123456789",
        "xyz998877",
        "12345678-01",
        "5551",
        "9K4471",
    ),
    "patient_name": (
        "Jane Roe",
        "Roe, Jane",
        "John Q. Public",
        "Mary-Ann O'Neill",
        "José Núñez",
        "Wei Zhang",
        "McRoe, Angus",
        "Ana de la Roe",
        "DOE, JANE",
        "Ülle Öpik",
        "Al Roe",
        "Roe Jane",
    ),
    "health_terms": (
        "biopsy",
        "Chemotherapy",
        "HIV",
        "HIV-positive",
        "diabetic",
        "metformin",
        "DEPRESSIVE DISORDER",
        "x-rays",
        "lab results",
        "A1c",
        "sertraline",
        "emergency department",
        "hospice",
        "kidney failure",
        "dementia",
    ),
    "phi": (
        "SSN 536-22-8726 / biopsy",
        "E11.9 for MRN 00123456",
        "DOB 1/2/1980, HIV",
        "Patient: Jane Roe, chemotherapy",
        "1EG4-TE5-MK73 dx I10",
        "Member ID W123456789: metformin refill",
        "dialysis; social security number 536228726",
        "hepatitis (chart no. 55512)",
        "our patient John Public, F32.A",
        "pathology report, D.O.B. 2 Jan 1980",
    ),
}

NEAR_MISSES: Mapping[str, tuple[str, ...]] = {
    "us_ssn": (
        "000-12-3456",
        "666-12-3456",
        "912-34-5678",
        "536-00-8726",
        "536-22-0000",
        "078-05-1120",
        "219-09-9999",
        "53-622-8726",
        "536-228-726",
        "536-22-872",
        "5362-28726",
        "62701-4512",
        "XXX-XX-8726",
    ),
    "credit_card": (
        "4111 1111 1111 1112",
        "4444 4444 4444 4444",
        "4111 1111 1111 111",
        "1234 5678 9012 3452",
        "9111111111111113",
        "3782 822463 10006",
        "41111111111111111111",
    ),
    "npi": ("1234567890", "3234567893", "123456789", "12345678931", "0234567893"),
    "mbi": (
        "0EG4-TE5-MK73",
        "1SG4-TE5-MK73",
        "1EG4-TE5-MKA3",
        "1EGA-TE5-MK73",
        "1EG4-TE5-M173",
        "1eG4-tE5-Mk73",
        "1EG4-TE5-MK7",
    ),
    "dea": ("AB1234567", "AB123456", "1B1234563", "AB12345630", "NB1234563", "ABC1234563"),
    "icd10": ("A4", "E1", "B12", "A12.3", "E11.99", "ZZ9.1", "E11.9.1", "G20.1", "E1I.9", "X.12"),
    "ndc": ("123-456-78", "12345-67-890", "1234567", "12345-6789-012", "555-0143"),
    "us_phone": (
        "117-555-0143",
        "217-155-0143",
        "211-555-0143x1".replace("x1", "99"),
        "217-911-0143",
        "555-0143",
        "217-555-01433",
    ),
    "us_bank_routing": ("021000022", "991000021", "000000000", "02100002", "0210000211", "131000021"),
    "iban": (
        "DE89370400440532013001",
        "DE8937040044053201300",
        "XX89370400440532013000",
        "GB29 NWBK 6016 1331 9268 18",
        "DE89 3704 0044 0532 0130 000",
    ),
    "date_of_birth": ("13/32/1980", "1980", "January", "00/00/0000", "on file", "1/2", "unknown"),
    "patient_id": ("12", "pending", "n/a", "123", "to follow", "A12"),
    "health_terms": ("diary", "cancel", "therapist's chair", "HIVE", "aspect", "patience", "stable", "operation"),
    "phi": (
        "536-22-8726",
        "E11.9",
        "Patient: Jane Roe",
        "biopsy",
        "MRN 00123456",
        "DOB 1/2/1980",
        "(217) 555-0143, diabetes",
        "roe@isp.example has asthma",
        "NPI 1234567893, chemotherapy",
    ),
    "patient_name": ("Portal Access", "Please Call", "not yet", "Information Sheet", "Services Department", "jane"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Texts of one message and the detectors that should find something in them. ``about``: the only one judged."""

    texts: tuple[str, ...]
    expected: frozenset[str]
    about: str | None = None


@dataclass(slots=True)
class Score:
    """How a detector did: cases that are right or wrong, with a find or without."""

    found: int = 0
    missed: int = 0
    false: int = 0
    silent: int = 0

    @property
    def precision(self) -> float:
        """Of its finds, the part that is right."""
        return self.found / (self.found + self.false)

    @property
    def recall(self) -> float:
        """Of what it should find, the part that it finds."""
        return self.found / (self.found + self.missed)


def lines() -> Iterator[Case]:
    """The hand-written lines: ``names | text``, ``-`` for none; `` || `` parts subject and body."""
    for line in LINES.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            names, _, text = line.partition(" | ")
            expected = frozenset(re.findall(r"\w+", names))
            assert expected <= set(JUDGED), line
            yield Case(tuple(text.split(" || ")), expected)


def combinations() -> Iterator[Case]:
    """Numbers in sentences, right ones and near misses."""
    for name, carriers in CARRIERS.items():
        for carrier in carriers:
            for number in WRITTEN[name]:
                yield Case((carrier.format(number),), frozenset({name}), name)
            for number in NEAR_MISSES[name]:
                yield Case((carrier.format(number),), frozenset(), name)


def finds(case: Case) -> set[str]:
    """The detectors that find something in the case."""
    scan = Scan([normal_text(text) for text in case.texts])
    names = JUDGED if case.about is None else (case.about,)
    return {name for name in names if scan.has(BUILT_IN[name])}


@cache
def scores() -> Mapping[str, Score]:
    """Every detector's score over the whole set."""
    made = {name: Score() for name in JUDGED}
    for case in (*lines(), *combinations()):
        got = finds(case)
        for name in JUDGED if case.about is None else (case.about,):
            score = made[name]
            if name in case.expected:
                score.found, score.missed = score.found + (name in got), score.missed + (name not in got)
            else:
                score.false, score.silent = score.false + (name in got), score.silent + (name not in got)
    return made


def table() -> str:
    """The table of the page."""
    rows = [
        "| detector | to be found | of these found | other cases | found in vain | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, score in scores().items():
        rows.append(
            f"| `{name}` | {score.found + score.missed} | {score.found} | {score.false + score.silent} | {score.false} "
            f"| {score.precision:.3f} | {score.recall:.3f} |"
        )
    return "\n".join(rows)


BEGIN, END = "<!-- evaluation: begin -->\n", "\n<!-- evaluation: end -->"


def written(page: str) -> str:
    """The page with the table as it should be."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + table() + END + tail


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
