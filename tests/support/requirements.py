"""Random requirements: as models, and as people might write them."""

from hypothesis import strategies as st

from bus import AnyOf, Condition, Operator, Preference, TaskRequirement

ODD_TEXTS = [
    "",
    " ",
    "true",
    "True",
    "null",
    "in",
    "exists",
    "007",
    "1e5",
    "-",
    "a, b]",
    'a"b',
    "a:1",
    "ä\u2028|",
    "16",
]
RANGES = [None, ">=2", ">=2,<3", "==1.*", "~=1.4.2", "!=2.0rc1", "===wild", ">=1!2.0.post1,<3.dev2"]

attributes = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True) | st.sampled_from(
    ["agent.id", "in", "contains", "exists", "gpu"]
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_./-]{0,127}", fullmatch=True)
texts = st.text(max_size=8) | st.sampled_from(ODD_TEXTS)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = texts | numbers | st.booleans()
lists = st.lists(scalars, max_size=4).map(tuple)

VALUES = {
    Operator.EQ: scalars | lists,
    Operator.NE: scalars | lists,
    Operator.GT: texts | numbers,
    Operator.GE: texts | numbers,
    Operator.LT: texts | numbers,
    Operator.LE: texts | numbers,
    Operator.IN: lists,
    Operator.CONTAINS: scalars,
    Operator.EXISTS: st.none(),
}


@st.composite
def _comparisons(draw: st.DrawFn) -> Condition:
    op = draw(st.sampled_from(Operator))
    return Condition(attribute=draw(attributes), op=op, value=draw(VALUES[op]))


conditions = _comparisons()
weights = st.just(1.0) | st.integers(1, 1000).map(float) | st.floats(0, 1000, exclude_min=True)
preferences = st.builds(lambda condition, weight: Preference(**dict(condition), weight=weight), conditions, weights)
disjunctions = st.builds(AnyOf, any_of=st.lists(conditions, min_size=1, max_size=3).map(tuple))
clauses = conditions | disjunctions
requirements = st.builds(
    TaskRequirement,
    capability=names,
    version=st.sampled_from(RANGES),
    requires=st.lists(clauses, max_size=3).map(tuple),
    prefers=st.lists(preferences, max_size=3).map(tuple),
)

_spaces = st.sampled_from(["", "", " ", "  ", "\n\t"])
_signs = st.sampled_from(["==", "!=", ">", ">=", "<", "<="])
_values = st.sampled_from(["eu", '"eu"', '"a, b"', '"\\u00e4"', "ä", "1", "1.0", "1e2", "-0.0", "1.2.3", "+5", ".5"])
_lists = st.lists(_values, max_size=3).map(lambda items: f"[{' , '.join(items)}]")
_weights = st.sampled_from(["", ":1", ": 1.0", " :10", ":1e1", ":0.25"])


@st.composite
def _written_comparisons(draw: st.DrawFn) -> str:
    space = draw(_spaces)
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return f"{space}{draw(_signs)}{draw(_spaces)}{draw(_values)}"
    if kind == 1:
        return f" in{space}{draw(_lists)}"
    return f" contains {space}{draw(_values)}" if kind == 2 else " exists"


@st.composite
def _written_items(draw: st.DrawFn) -> str:
    attribute = draw(st.sampled_from(["gpu", "agent.id", "in", "a-b"]))
    match draw(st.integers(0, 3)):
        case 0:
            return f"{attribute}{draw(_spaces)}~{draw(_spaces)}{draw(_values)}{draw(_weights)}"
        case 1:
            return f"{attribute} ~{draw(_written_comparisons())}{draw(_weights)}"
        case 2:
            parts = [f"{attribute}{part}" for part in draw(st.lists(_written_comparisons(), min_size=1, max_size=3))]
            return f"({draw(_spaces)}{f'{draw(_spaces)}|'.join(parts)}{draw(_spaces)})"
        case _:
            return f"{attribute}{draw(_written_comparisons())}"


@st.composite
def _written(draw: st.DrawFn) -> str:
    items = f"{draw(_spaces)},{draw(_spaces)}".join(draw(st.lists(_written_items(), max_size=4)))
    asked = draw(st.sampled_from(["", " >= 2 , <3 ", "==1.*", "~=2.0"]))
    return f"{draw(_spaces)}translate{asked}{draw(_spaces)}[{draw(_spaces)}{items}]{draw(_spaces)}"


written = _written()
"""Texts that are requirements, mostly not as they would be formatted."""
