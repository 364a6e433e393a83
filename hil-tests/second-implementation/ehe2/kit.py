"""Runs the files of the test kit (testkit/README.md)."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .octets import BASE64, ZLIB, KitError, as_octets
from .procedures import PROCEDURES, Finding
from .refused import Refused

KIT = 1
# What a runner need not find: whether an author who takes pco wherever it is shorter would write these bytes.
MAY_BE_LEFT_OUT = frozenset(["canonical"])
# Procedures of the kit that are not written here yet. Their files are counted and not judged.
NOT_YET: frozenset[str] = frozenset()


def as_json(found: Any) -> Any:
    """What was found, with byte strings as numbers are compared: one form for hex and base64."""
    if isinstance(found, (bytes, bytearray)):
        return found.hex()
    if isinstance(found, dict):
        return {key: as_json(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [as_json(value) for value in found]
    return found


def expected_json(expected: Any) -> Any:
    if isinstance(expected, str) and expected.startswith((BASE64, ZLIB)):
        return as_octets(expected).hex()
    if isinstance(expected, dict):
        return {key: expected_json(value) for key, value in expected.items()}
    if isinstance(expected, list):
        return [expected_json(value) for value in expected]
    return expected


def same(expected: Any, found: Any) -> bool:
    """As `==`, but true is not 1."""
    if type(expected) is not type(found):
        return False
    if isinstance(expected, dict):
        return expected.keys() == found.keys() and all(same(expected[key], found[key]) for key in expected)
    if isinstance(expected, list):
        return len(expected) == len(found) and all(same(a, b) for a, b in zip(expected, found))
    return expected == found


@dataclass(frozen=True)
class Verdict:
    valid: bool
    expected: str
    found: str
    right: bool


def _unlike(expect: dict[str, Any], finding: Finding) -> str | None:
    for name, value in expect.items():
        if name not in finding.found:
            if name in MAY_BE_LEFT_OUT:
                continue
            return f"nothing for {name}"
        expected, found = expected_json(value), as_json(finding.found[name])
        if not same(expected, found):
            return f"{name} is {json.dumps(found)[:300]} for {json.dumps(expected)[:300]}"
    return None


def judge_case(case: dict[str, Any]) -> Verdict:
    valid = case.get("verdict") == "valid"
    refusal = case.get("refusal")
    expected = "valid" if valid else "invalid" + (f", refusal {refusal}" if refusal is not None else "")
    try:
        if case.get("kit") != KIT:
            raise KitError(f"unknown kit {case.get('kit')}")
        if case.get("verdict") not in ("valid", "invalid"):
            raise KitError(f"unknown verdict {case.get('verdict')}")
        procedure = PROCEDURES.get(case.get("what", ""))
        if procedure is None:
            raise KitError(f"unknown procedure {case.get('what')}")
        try:
            finding = procedure(case["input"], case.get("keys", {}))
        except Refused as refused:
            finding = Finding({}, refused)
        unlike = _unlike(case.get("expect", {}), finding)
        refused = finding.refused
        found = "valid" if refused is None else f"refused: {refused}"
        right = (refused is None) == valid and (refusal is None or (refused is not None and refused.code == refusal))
        if unlike is not None:
            return Verdict(valid, expected, f"{found}; {unlike}", False)
        return Verdict(valid, expected, found, right)
    except Exception as error:  # A program that stumbles has judged nothing, whatever the verdict is.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Verdict(valid, expected, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})", False)


def run_kit(folder: Path) -> bool:
    opened = refused = later = wrong = total = 0
    for path in sorted(folder.rglob("*.json")):
        total += 1
        try:
            case = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(case, dict) and case.get("what") in NOT_YET - PROCEDURES.keys():
                later += 1
                continue
            verdict = judge_case(case) if isinstance(case, dict) else Verdict(False, "a case", "no JSON object", False)
        except (OSError, ValueError) as error:
            verdict = Verdict(False, "a case", str(error), False)
        if not verdict.right:
            wrong += 1
            print(f"{path.relative_to(folder)}: expected {verdict.expected}, found {verdict.found}")
        elif verdict.valid:
            opened += 1
        else:
            refused += 1
    not_yet = f", {later} of procedures that are not written yet" if later else ""
    print(f"{total} files: {opened} valid opened, {refused} invalid refused{not_yet}, {wrong} wrong")
    return total > 0 and wrong == 0
