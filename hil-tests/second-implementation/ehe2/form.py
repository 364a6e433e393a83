"""Forms: what a decoded CBOR value has to be (E4), and what the program makes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, ClassVar, Self

from . import cbor
from .refused import Refused, require

Form = Callable[[Any], Any]


def uint(bits: int = 64) -> Form:
    def read(value: Any) -> int:
        require(isinstance(value, int) and not isinstance(value, bool), "not an integer")
        require(0 <= value < 1 << bits, f"not an unsigned integer of {bits} bits")
        return value

    return read


def code(known: Collection[int]) -> Form:
    def read(value: Any) -> int:
        require(isinstance(value, int) and not isinstance(value, bool), "not an integer")
        require(value in known, f"a number without a meaning: {value}")
        return value

    return read


def flags(known: int) -> Form:
    """A set of bits of which only `known` have a meaning."""

    def read(value: Any) -> int:
        value = uint(16)(value)
        require(value & ~known == 0, "a bit without a meaning")
        return value

    return read


def integer(low: int, high: int) -> Form:
    def read(value: Any) -> int:
        require(isinstance(value, int) and not isinstance(value, bool), "not an integer")
        require(low <= value <= high, "an integer out of its range")
        return value

    return read


def boolean(value: Any) -> bool:
    require(isinstance(value, bool), "not a boolean")
    return value


def octets(length: int) -> Form:
    def read(value: Any) -> bytes:
        require(isinstance(value, bytes), "not a byte string")
        require(len(value) == length, f"{len(value)} bytes for {length}")
        return value

    return read


def blob(value: Any) -> bytes:
    """A byte string of any length: what it holds is judged, with its limit, where it is used (E4)."""
    require(isinstance(value, bytes), "not a byte string")
    return value


def text(value: Any) -> str:
    """Text of any length: its limit is judged where the rules are."""
    require(isinstance(value, str), "not text")
    return value


def check_text(value: str, most: int, least: int = 0) -> None:
    require(least <= len(value.encode()) <= most, "text out of its limit")


def array(of: Form, most: int | None = None, least: int = 0) -> Form:
    """Of any number of items, but for the few counts that are a matter of form."""

    def read(value: Any) -> list[Any]:
        require(isinstance(value, list), "not an array")
        require(len(value) >= least and (most is None or len(value) <= most), "an array out of its limit")
        return [of(item) for item in value]

    return read


class Member:
    def __init__(self, key: int, form: Form, optional: bool) -> None:
        self.key = key
        self.form = form
        self.optional = optional


def member(key: int, form: Form, optional: bool = False) -> Any:
    return Member(key, form, optional)


class Record:
    """A structure: a map with exactly its members. `raw` is the CBOR value that it was read from."""

    _members: ClassVar[dict[str, Member]] = {}
    raw: dict[int, Any]

    def __init_subclass__(cls) -> None:
        cls._members = {name: value for name, value in vars(cls).items() if isinstance(value, Member)}

    @classmethod
    def read(cls, value: Any) -> Self:
        require(isinstance(value, dict), f"{cls.__name__}: not a map")
        keys = {m.key for m in cls._members.values()}
        require(set(value) <= keys, f"{cls.__name__}: an unknown member")
        record = cls.__new__(cls)
        record.raw = value
        for name, m in cls._members.items():
            if m.key in value:
                try:
                    setattr(record, name, m.form(value[m.key]))
                except Refused as refused:
                    raise Refused(f"{cls.__name__}.{name}: {refused.reason}", refused.code) from refused
            else:
                require(m.optional, f"{cls.__name__}: {name} is missing")
                setattr(record, name, None)
        return record

    @classmethod
    def decode(cls, data: bytes, limit: int) -> Self:
        return cls.read(cbor.decode(data, limit))

    @property
    def encoded(self) -> bytes:
        return cbor.encode(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.raw == other.raw  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.encoded)
