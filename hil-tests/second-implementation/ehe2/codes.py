"""Section 16."""

from __future__ import annotations

_UNITS = """
1 /min Rate; 2 {beats}/min Rate; 3 {breaths}/min Rate; 4 Hz Rate; 5 % Fraction; 6 1 Fraction; 7 Cel Temperature;
8 [degF] Temperature; 9 K Temperature; 10 kg Mass; 11 g Mass; 12 [lb_av] Mass; 13 [stone_av] Mass; 14 m Length;
15 cm Length; 16 mm Length; 17 km Length; 18 [in_i] Length; 19 [ft_i] Length; 20 [mi_i] Length; 21 kg/m2 MassPerArea;
22 mm[Hg] Pressure; 23 kPa Pressure; 24 mg/dL MassConcentration; 25 g/L MassConcentration; 26 kg/L MassConcentration;
27 mmol/L AmountConcentration; 28 mol/L AmountConcentration; 29 s Time; 30 ms Time; 31 min Time; 32 h Time; 33 d Time;
34 kcal Energy; 35 kJ Energy; 36 kcal/d Power; 37 kJ/d Power; 38 {steps} Count; 39 {steps}/min StepRate; 40 m/s Speed;
41 km/h Speed; 42 Ohm Resistance; 43 Pa Pressure; 44 J Energy; 45 [oz_av] Mass; 46 [yd_i] Length; 47 wk Time; 48 mg Mass
"""

# By number: the UCUM code and the quantity.
UNITS: dict[int, tuple[str, str]] = {
    int(number): (ucum, quantity)
    for number, ucum, quantity in (entry.split() for entry in _UNITS.split(";"))
}

_CANONICAL = """
/min /min ms mm[Hg] mm[Hg] mm[Hg] ms ms % % /min mg/dL mg/dL % kcal/d Cel Cel kg cm kg/m2 % kg kg kg kg % kg Ohm {steps}
{steps}/min m m/s kcal min % kg m/s
"""
_UNIT_NUMBERS = {ucum: number for number, (ucum, _) in UNITS.items()}

# By the vital's number: its canonical unit's.
CANONICAL_UNITS: dict[int, int] = {
    vital: _UNIT_NUMBERS[ucum] for vital, ucum in enumerate(_CANONICAL.split(), start=1)
}

GLUCOSES = frozenset([12, 13])
STATISTICS = range(1, 18)
TIME_METHODS = range(1, 10)


def measures(unit: int, vital: int) -> bool:
    """B3."""
    quantity = UNITS[unit][1]
    if quantity == UNITS[CANONICAL_UNITS[vital]][1]:
        return True
    return vital in GLUCOSES and quantity == "AmountConcentration"
