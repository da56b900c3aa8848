"""How people write what a task asks of an agent, and what an agent asks of a task: one grammar, read and written here.

Texts are parsed into the models of `bus.requirements`, which say what they mean. In EBNF, with spaces allowed between
any two symbols::

    requirement = capability [ range ] [ "[" [ item { "," item } ] "]" ] ;
    item        = clause | wish ;
    clauses     = [ clause { "," clause } ] ;             (* all are required: an agent's `accepts` *)
    clause      = condition | any_of ;                    (* one item of `requires` *)
    any_of      = "(" condition { "|" condition } ")" ;   (* one is enough *)
    condition   = attribute comparison ;
    wish        = attribute "~" ( comparison | value ) [ ":" weight ] ;   (* not required; a value alone is "==" *)
    preference  = wish | condition [ ":" weight ] ;       (* one item of `prefers` *)
    comparison  = ( "==" | "!=" ) value | ( ">" | ">=" | "<" | "<=" | "contains" ) scalar
                | "in" list | "exists" ;
    value       = scalar | list ;
    list        = "[" [ scalar { "," scalar } ] "]" ;
    scalar      = "true" | "false" | number | word | string ;
    weight      = number ;                                (* above 0, at most 1000; 1 if absent *)
    range       = a PEP 440 range of versions, such as >=2,<3 ;
    capability  = a letter or "_", then up to 127 of A-Z a-z 0-9 _ . / - ;
    attribute   = a letter or "_", then up to 63 of A-Z a-z 0-9 _ . - ;
    word        = letters, digits and _ . @ / + * - in any script, if it reads as nothing else ;
    number      = a number as in JSON ;
    string      = a string as in JSON, in double quotes ;

``translate>=2[lang contains de, (gpu >= 16 | tpu exists), region ~ eu:10]``. Whatever a format function writes is read
back as an equal model, and is the one way in which it writes that model.
"""

import json
import re
from functools import lru_cache
from math import isfinite
from typing import Final

from bus.ids import CAPABILITY_PATTERN
from bus.requirements import (
    ATTRIBUTE_PATTERN,
    MAX_CLAUSES,
    MAX_RANGE,
    MAX_WEIGHT,
    AnyOf,
    Clause,
    Compared,
    ComparedScalar,
    Condition,
    Operator,
    Preference,
    TaskRequirement,
    wanted_value,
)
from bus.text_cursor import HALF_CHARACTER, Cursor
from bus.version_range import version_clause

_EXAMPLES: Final = {
    "condition": "`attribute operator value`, e.g. 'gpu >= 16'",
    "disjunction": "e.g. '(gpu >= 16 | tpu exists)'",
    "preference": "e.g. 'region ~ eu:10' or 'gpu ~ >= 16'",
    "requirement": "e.g. 'translate>=2[lang contains de, region ~ eu:10]'",
}

_CAPABILITY: Final = re.compile(CAPABILITY_PATTERN.strip("^$"))
_ATTRIBUTE: Final = re.compile(ATTRIBUTE_PATTERN.strip("^$"))
_WORD: Final = re.compile(r"[\w.@/+*-]+")
_OPERATOR: Final = re.compile(r"[=!<>]=|[<>]|(?:in|contains|exists)(?![\w.@/+*-])")
_RANGE: Final = re.compile(r"(?=[~=!<>])[^\[]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_JSON: Final = json.JSONDecoder()

_TRUTH: Final = {"true": True, "false": False}
_MISTAKES: Final = frozenset({"True", "False", "None", "null"})
_NO_WORDS: Final = frozenset({*_TRUTH, *_MISTAKES, Operator.IN, Operator.CONTAINS, Operator.EXISTS})
"""Texts that would be read as something else, or by somebody."""


@lru_cache(maxsize=1024)
def parse_requirement(text: str) -> TaskRequirement:
    """Read ``capability range [conditions and preferences]``. Raises `RequirementSyntaxError`."""
    return _Reader(text, "requirement", _EXAMPLES["requirement"]).requirement()


def parse_clauses(text: str) -> tuple[Clause, ...]:
    """Read conditions with commas between them, all of which are required. Raises `RequirementSyntaxError`."""
    return _Reader(text, "condition", _EXAMPLES["condition"]).clauses()


def parse_condition(text: str) -> Condition:
    """Read one condition. Raises `RequirementSyntaxError`."""
    reader = _Reader(text, "condition", _EXAMPLES["condition"])
    found = reader.condition()
    reader.end()
    return found


def parse_any_of(text: str) -> AnyOf:
    """Read a disjunction in its parentheses. Raises `RequirementSyntaxError`."""
    reader = _Reader(text, "disjunction", _EXAMPLES["disjunction"])
    found = reader.any_of()
    reader.end()
    return found


def parse_preference(text: str) -> Preference:
    """Read one preference, of which ``~`` and weight may be left out. Raises `RequirementSyntaxError`."""
    reader = _Reader(text, "preference", _EXAMPLES["preference"])
    found = reader.preference()
    reader.end()
    return found


def format_requirement(requirement: TaskRequirement) -> str:
    """Write `requirement` as `parse_requirement` reads it: conditions first, then preferences."""
    items = ", ".join(map(format_clause, (*requirement.requires, *requirement.prefers)))
    return f"{requirement.capability}{requirement.version or ''}" + (f"[{items}]" if items else "")


def format_clause(item: Clause) -> str:
    """Write a condition, a preference or a disjunction."""
    if isinstance(item, AnyOf):
        return f"({' | '.join(map(format_clause, item.any_of))})"
    words: list[str] = [item.attribute]
    weight = ""
    if isinstance(item, Preference):
        words.append("~")
        weight = "" if item.weight == 1 else f":{json.dumps(item.weight).removesuffix('.0')}"
    if item.op is not Operator.EQ or not isinstance(item, Preference):
        words.append(item.op)
    if item.op is not Operator.EXISTS:
        words.append(_format_value(item.value))
    return " ".join(words) + weight


def _format_value(value: Compared) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_format_value, value))}]"
    if isinstance(value, str) and _WORD.fullmatch(value) and not _NUMBER.fullmatch(value) and value not in _NO_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


class _Reader(Cursor):
    """Reads the symbols of the grammar, one method each."""

    def requirement(self) -> TaskRequirement:
        capability = self.take(_CAPABILITY)
        if capability is None:
            self.fail("the name of a capability")
        version = self._range()
        requires: list[Clause] = []
        prefers: list[Preference] = []
        if self.sign("["):
            while not self.sign("]"):
                if requires or prefers:
                    self.need(",", "`,` or `]`")
                start = self.skip()
                item = self._item()
                prefers.append(item) if isinstance(item, Preference) else requires.append(item)
                if max(len(requires), len(prefers)) > MAX_CLAUSES:
                    self.fail(f"at most {MAX_CLAUSES} conditions and as many preferences", start)
            self.end()
        else:
            self.end("a range of versions such as >=2,<3, or conditions in [ ]")
        return TaskRequirement(capability=capability, version=version, requires=tuple(requires), prefers=tuple(prefers))

    def clauses(self) -> tuple[Clause, ...]:
        found: list[Clause] = []
        while not self.at_end():
            if found:
                self.need(",", "`,` or the end")
            found.append(self.any_of() if self.next("(") else self.condition())
        return tuple(found)

    def any_of(self) -> AnyOf:
        self.need("(", "`(`")
        found = [self.condition()]
        while not self.sign(")"):
            start = self.at
            self.need("|", "`|` or `)`")
            found.append(self.condition())
            if len(found) > MAX_CLAUSES:
                self.fail(f"at most {MAX_CLAUSES} conditions", start)
        return AnyOf(any_of=tuple(found))

    def condition(self) -> Condition:
        attribute = self._attribute()
        return self._compare(attribute, self._operator("an operator"))

    def preference(self) -> Preference:
        attribute = self._attribute()
        if self.sign("~"):
            return self._wish(attribute)
        return self._weigh(self._compare(attribute, self._operator("`~` or an operator")))

    def _item(self) -> Clause:
        if self.next("("):
            return self.any_of()
        attribute = self._attribute()
        if self.sign("~"):
            return self._wish(attribute)
        return self._compare(attribute, self._operator("`~` or an operator"))

    def _wish(self, attribute: str) -> Preference:
        op = self.take(_OPERATOR)
        return self._weigh(self._compare(attribute, Operator.EQ if op is None else Operator(op)))

    def _compare(self, attribute: str, op: Operator) -> Condition:
        if op is Operator.EXISTS:
            return Condition(attribute=attribute, op=op)
        start = self.skip()
        value = self._list() if self.sign("[") else self._scalar()
        wanted = wanted_value(op, value)
        if wanted is not None:
            self.fail(wanted, start)
        return Condition(attribute=attribute, op=op, value=value)

    def _weigh(self, condition: Condition) -> Preference:
        weight = 1.0
        if self.sign(":"):
            start = self.skip()
            weight = float(self.take(_NUMBER) or "nan")
            if not 0 < weight <= MAX_WEIGHT:
                self.fail(f"a weight above 0, at most {MAX_WEIGHT:g}", start)
        return Preference(attribute=condition.attribute, op=condition.op, value=condition.value, weight=weight)

    def _range(self) -> str | None:
        text = self.take(_RANGE)
        if text is None:
            return None
        start = at = self.at - len(text)
        clauses: list[str] = []
        for part in text.split(","):
            try:
                clauses.append(version_clause(part))
            except ValueError:
                self.fail("a range of versions such as >=2,<3", at)
            at += len(part) + 1
        version = ",".join(clauses)
        if len(version) > MAX_RANGE:
            self.fail(f"a range of versions of at most {MAX_RANGE} characters", start)
        return version

    def _attribute(self) -> str:
        return self.take(_ATTRIBUTE) or self.fail("the name of an attribute")

    def _operator(self, expected: str) -> Operator:
        return Operator(self.take(_OPERATOR) or self.fail(f"{expected} ({' '.join(Operator)})"))

    def _list(self) -> tuple[ComparedScalar, ...]:
        found: list[ComparedScalar] = []
        while not self.sign("]"):
            if found:
                self.need(",", "`,` or `]`")
            found.append(self._scalar())
        return tuple(found)

    def _scalar(self) -> ComparedScalar:
        if self.next('"'):
            return self._string()
        start = self.skip()
        word = self.take(_WORD)
        if word is None:
            self.fail("a value")
        self.word_end = self.at
        if word in _MISTAKES:
            self.fail("true, false, or a text in double quotes", start)
        if not _NUMBER.fullmatch(word):
            return _TRUTH.get(word, word)
        number = _number(word)
        return self.fail("a number that is not as large", start) if number is None else number

    def _string(self) -> str:
        try:
            text, end = _JSON.raw_decode(self.text, self.at)
        except ValueError:
            self.fail("a text in double quotes, as in JSON")
        if HALF_CHARACTER.search(text):
            self.fail("a text of whole characters")
        self.at = end
        return str(text)


def _number(word: str) -> int | float | None:
    try:
        number: int | float = json.loads(word)
    except ValueError:  # more digits than Python reads
        return None
    return number if isinstance(number, int) or isfinite(number) else None
