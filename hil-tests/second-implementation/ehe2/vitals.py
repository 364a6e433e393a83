"""Section 14: vitals bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import cbor
from .characters import has_control
from .codes import CANONICAL_UNITS, STATISTICS, TIME_METHODS, UNITS, measures
from .columns import DELTA, MASK, PACKED, int64, plain_encoding, read_column, signed
from .form import Form, Record, array, boolean, check_text, code, integer, member, text, uint
from .limits import COLUMN_PCO_VALUES_MIN, DEVICE_ID_MAX_BYTES, READINGS_PER_BODY_MAX, SERIES_PER_BODY_MAX, VITALS_BODY_MAX_BYTES
from .refused import require


def _raw(value: Any) -> Any:
    return value


_column: Form = _raw
# The widest power of ten that is written out instead of an exponent.
WRITTEN_OUT_DIGITS = 18


class Series(Record):
    vital: int = member(0, code(CANONICAL_UNITS))
    unit: int | None = member(1, code(UNITS), optional=True)
    device: str = member(2, text)
    exponent: int = member(3, integer(-128, 127))
    statistic: int | None = member(4, code(STATISTICS), optional=True)
    flags: int | None = member(5, uint(32), optional=True)
    method: int = member(6, code(TIME_METHODS))
    clock_synchronised: bool = member(7, boolean)
    count: int = member(8, uint(16))
    time: Any = member(9, _column)
    delay: Any = member(10, _column, optional=True)
    monotonic: Any = member(11, _column)
    uncertainty: Any = member(12, _column)
    device_clock: Any = member(13, _column, optional=True)
    zone: int | None = member(14, integer(-32768, 32767), optional=True)
    interval: Any = member(15, _column, optional=True)
    mantissa: Any = member(16, _column)

    @property
    def shared(self) -> bytes:
        """What the readings of one series agree in (B1)."""
        members = {key: self.raw[key] for key in (*range(8), 14) if key in self.raw}
        return cbor.encode([members, *(key in self.raw for key in (10, 13, 15))])


class VitalsBody(Record):
    origin: int = member(0, uint())
    monotonic_start: int = member(1, int64)
    series: list[Series] = member(2, array(Series.read, SERIES_PER_BODY_MAX))


@dataclass(frozen=True)
class Reading:
    vital: int
    unit: int
    method: int
    device: str
    mantissa: int
    exponent: int
    flags: int
    clock_synchronised: bool
    received: int
    received_monotonic: int
    uncertainty: int
    derived: int | None
    interval: int | None
    device_clock: int | None
    zone: int | None
    statistic: int | None

    @property
    def text(self) -> str:
        """The value with the digits that it has."""
        if not -WRITTEN_OUT_DIGITS <= self.exponent <= 0:
            return f"{self.mantissa}e{self.exponent}"
        sign, digits = "-" if self.mantissa < 0 else "", str(abs(self.mantissa))
        if self.exponent == 0:
            return sign + digits
        digits = digits.rjust(1 - self.exponent, "0")
        return f"{sign}{digits[: self.exponent]}.{digits[self.exponent :]}"


def _check_series(series: Series) -> None:
    canonical = CANONICAL_UNITS[series.vital]
    require(series.unit != canonical, "the canonical unit is written out")
    require(measures(series.unit or canonical, series.vital), "the unit does not measure the vital")
    check_text(series.device, DEVICE_ID_MAX_BYTES, 1)
    require(not has_control(series.device), "a control character in a device")
    require(series.flags != 0, "flags of zero are written out")
    require(series.zone is None or series.device_clock is not None, "a zone without a device clock")


@dataclass
class _Columns:
    time: list[int]
    delay: list[int] | None
    monotonic: list[int]
    uncertainty: list[int]
    device_clock: list[int] | None
    interval: list[int] | None
    mantissa: list[int]

    @classmethod
    def of(cls, series: Series) -> "_Columns":
        def values(raw: Any) -> Any:
            return None if raw is None else read_column(raw, series.count)

        columns = cls(values(series.time), values(series.delay), values(series.monotonic), values(series.uncertainty),
                      values(series.device_clock), values(series.interval), values(series.mantissa))
        require(all(0 <= value < 1 << 32 for value in columns.uncertainty), "an uncertainty out of its range")
        return columns


def _readings(body: VitalsBody, series: Series, columns: _Columns) -> list[Reading]:
    readings = []
    for i in range(series.count):
        at = body.origin + columns.time[i] & MASK
        received = at if columns.delay is None else at + columns.delay[i] & MASK
        readings.append(Reading(
            vital=series.vital,
            unit=series.unit or CANONICAL_UNITS[series.vital],
            method=series.method,
            device=series.device,
            mantissa=columns.mantissa[i],
            exponent=series.exponent,
            flags=series.flags or 0,
            clock_synchronised=series.clock_synchronised,
            received=received,
            received_monotonic=received - (body.monotonic_start + columns.monotonic[i]) & MASK,
            uncertainty=columns.uncertainty[i],
            derived=None if columns.delay is None else at,
            interval=None if columns.interval is None else columns.interval[i] & MASK,
            device_clock=None if columns.device_clock is None else signed(at + columns.device_clock[i]),
            zone=series.zone,
            statistic=series.statistic,
        ))
    return readings


def read_vitals(data: bytes) -> tuple[list[Reading], bool]:
    """The readings, and whether pco could have made the body shorter: only then are its bytes the author's choice."""
    body = VitalsBody.decode(data, VITALS_BODY_MAX_BYTES)
    require(len(body.series) > 0, "no series")
    # B2: all counts before any column.
    require(all(series.count >= 1 for series in body.series), "a series without readings")
    require(sum(series.count for series in body.series) <= READINGS_PER_BODY_MAX, "too many readings")
    for series in body.series:
        _check_series(series)
    require(len({series.shared for series in body.series}) == len(body.series), "one series written as two")
    readings: list[Reading] = []
    pco_may_stand = False
    for index, series in enumerate(body.series):
        columns = _Columns.of(series)
        if index == 0:
            require(columns.time[0] == 0 and columns.monotonic[0] == 0, "origin or monotonic start is not the first's")
        readings += _readings(body, series, columns)
        pco_may_stand |= series.count >= COLUMN_PCO_VALUES_MIN and any(
            isinstance(plain, list) and plain[0] in (PACKED, DELTA)
            for plain in (plain_encoding(values) for values in vars(columns).values() if values is not None)
        )
    return readings, pco_may_stand
