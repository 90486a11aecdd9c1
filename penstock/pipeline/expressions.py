"""
`${{ … }}` in a penstock.yaml, and the conditions of `when`: CEL over a small set of values.

Source of the language: the Common Expression Language. It has no loops but over lists that it is given, and no side
effects; the length of an expression and the number of its loops are bounded, so that it ends soon.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Set
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs

from penstock.errors import InputError
from penstock.pipeline.complaints import shortened, suggestion

if TYPE_CHECKING:
    from cel import Program

LENGTH_LIMIT = 1000
LOOPS_LIMIT = 2
# What an expression may name; `docs/pipelines.md` explains each.
NAMES = (
    *("commit", "short_commit", "ref", "branch", "tag", "event", "project", "run", "author"),
    *("pull_request", "env", "steps", "matrix", "inputs"),
)
FUNCTIONS = ("hash_files",)
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_LOOP = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(\s*(\w*)")
_STEP = re.compile(r"""\bsteps\s*(?:\.\s*(\w+)|\[\s*["']([^"']+)["']\s*\])""")
_MEMBER = re.compile(r"\b(matrix|inputs)\s*\.\s*(\w+)")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')

Functions = Mapping[str, Callable[..., Any]]


@attrs.frozen
class Scope:
    """What the expressions of one place may name. steps: those upstream; matrix, inputs: their keys."""

    steps: Set[str] = frozenset()
    matrix: Set[str] = frozenset()
    inputs: Set[str] = frozenset()
    names: Set[str] = frozenset(NAMES)
    functions: Set[str] = frozenset(FUNCTIONS)


def expressions_in(text: str) -> list[str]:
    """The sources of the expressions in a text, in order."""
    return [found.strip() for found in _EXPRESSION.findall(text)]


def check_expression(source: str, scope: Scope) -> None:
    """
    See that an expression can be read and names only what there is.

    Raises: InputError: what is wrong, and the remedy.
    """
    program = _compiled(source)
    for name in program.variables():
        if name not in scope.names and name not in _LOOP.findall(source):
            raise InputError(f'"{shortened(name)}" is not known in ${{{{ }}}}', remedy=suggestion(name, scope.names))
    for name in program.functions():
        if name[0] not in "_@!-" and name not in _OWN_OF_CEL and name not in scope.functions:
            remedy = suggestion(name, sorted(scope.functions))
            raise InputError(f'there is no function "{shortened(name)}"', remedy=remedy)
    _check_members(source, scope)


def _check_members(source: str, scope: Scope) -> None:
    bare = _TEXT.sub(lambda text: text[0] if source[: text.start()].rstrip().endswith("[") else '""', source)
    for match in _STEP.finditer(bare):
        name = match[1] or match[2]
        if name not in scope.steps and name not in {step.replace("-", "_") for step in scope.steps}:
            remedy = suggestion(name, sorted(scope.steps)) if scope.steps else "name it in `needs`"
            raise InputError(f'"{shortened(name)}" is no step that this one needs', remedy=remedy)
    for match in _MEMBER.finditer(bare):
        known = scope.matrix if match[1] == "matrix" else scope.inputs
        if match[2] not in known:
            raise InputError(f'{match[1]} has no "{shortened(match[2])}"', remedy=suggestion(match[2], sorted(known)))


def evaluate(source: str, values: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """
    What an expression gives.

    values: by name; those of `NAMES` that are left out are empty.
    Raises: InputError when it cannot be worked out.
    """
    import cel

    context = cel.Context({**dict.fromkeys(NAMES, ""), **values})
    for name, function in (functions or {}).items():
        context.add_function(name, function)
    try:
        return _compiled(source).execute(context)
    except (RuntimeError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        said = str(error).strip("'").splitlines()[0] if str(error) else type(error).__name__
        what = f'there is no "{said}"' if isinstance(error, KeyError) else said
        raise InputError(f"{shortened(source)} cannot be worked out: {what}", remedy="mend the expression") from error


def holds(source: str, values: Mapping[str, Any], functions: Functions | None = None) -> bool:
    """
    Whether a condition is true.

    Raises: InputError when it is neither true nor false.
    """
    value = evaluate(source, values, functions)
    if not isinstance(value, bool):
        raise InputError(f"{shortened(source)} is neither true nor false", remedy="write a comparison")
    return value


def fill(text: str, values: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """The text with its expressions worked out; a text that is one expression and nothing else keeps its type."""
    whole = _EXPRESSION.fullmatch(text.strip())
    if whole and len(expressions_in(text)) == 1:
        return evaluate(whole[1].strip(), values, functions)
    return _EXPRESSION.sub(lambda match: as_text(evaluate(match[1].strip(), values, functions)), text)


def put_in(text: str, known: Mapping[str, Mapping[str, Any]]) -> Any:
    """
    The text with `matrix.x` or `inputs.x` replaced by what they are; what depends on nothing else is worked out.

    known: `{"matrix": {"x": …}}`; expressions that name neither stay as they are.
    """

    def replaced(source: str) -> str:
        def literal(match: re.Match[str]) -> str:
            group = known.get(match[1])
            if group is None:
                return match[0]
            if match[2] not in group:
                what = f'{match[1]} has no "{shortened(match[2])}"'
                raise InputError(what, remedy=suggestion(match[2], sorted(group)))
            return _literal(group[match[2]])

        return _MEMBER.sub(literal, source)

    if not any(_MEMBER.search(source) for source in expressions_in(text)):
        return text
    filled = _EXPRESSION.sub(lambda match: f"${{{{ {replaced(match[1].strip())} }}}}", text)
    sources = expressions_in(filled)
    if any(_compiled(source).variables() or "hash_files" in source for source in sources):
        return filled
    return fill(filled, {})


def _literal(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def to_variables(text: str, place: Iterator[int]) -> tuple[str, dict[str, str]]:
    """
    A shell command with its expressions as variables, so that no value is ever read as shell.

    Returns: the command, and variable → expression.
    """
    found: dict[str, str] = {}

    def variable(match: re.Match[str]) -> str:
        name = f"CI_VALUE_{next(place)}"
        found[name] = match[1].strip()
        return f"${{{name}}}"

    return _EXPRESSION.sub(variable, text), found


def as_text(value: object) -> str:
    """A value in a text: true and false in small letters, nothing for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


@lru_cache(maxsize=512)
def _compiled(source: str) -> "Program":
    import cel

    if len(source) > LENGTH_LIMIT:
        raise InputError(f"the expression is longer than {LENGTH_LIMIT} characters", remedy="shorten it")
    if len(_LOOP.findall(source)) > LOOPS_LIMIT:
        raise InputError(f"the expression has more than {LOOPS_LIMIT} loops", remedy="use fewer of map, filter, all")
    try:
        return cel.compile(source)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{shortened(source) or 'nothing'} is no expression", remedy='write CEL, such as branch == "main"'
        ) from error


_OWN_OF_CEL = frozenset(
    (
        *("size", "contains", "startsWith", "endsWith", "matches", "has", "map", "filter", "all", "exists"),
        *("exists_one", "string", "int", "uint", "double", "bool", "bytes", "type", "dyn", "timestamp", "duration"),
        *("max", "min", "split", "lowerAscii", "upperAscii", "replace", "trim", "substring"),
    )
)
