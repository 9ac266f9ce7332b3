"""Which small faults: one place of one syntax tree, changed one way.

Left alone, since a test of them would be a test of nothing or of wording: docstrings, strings,
formatted strings (messages), annotations, `if TYPE_CHECKING`, `assert` (for the type checker
alone), decorators (a dataclass's flags), the types of `isinstance` and `cast`. And the index 0 of
a list made empty, appended to in one place outside any loop and never handed on, which is how a
step leaves something for the next ones: it has one element, so that -1 is the same one.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
_CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_EMPTY: Final = {
    "str": "''", "bytes": "b''", "int": "0", "tuple": "()", "Sequence": "()", "list": "[]",
    "dict": "{}", "Mapping": "{}", "set": "set()", "frozenset": "frozenset()",
}  # fmt: skip
#: Their negation is what swapping the comparison gives.
_NEGATED_BY_SWAP: Final = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, eq=False)
class Mutant:
    """One fault.

    Attributes:
        line, last: source lines of the statement it is in, as far as the fault.
        where: the functions and classes around it, dotted; for a class's or the module's own
            statement, the name it assigns.
        function: whether it is in a function's body, rather than run on import.
        operator: which kind of fault.
        change: before and after, for people.
    """

    line: int
    last: int
    where: str
    function: bool
    operator: str
    change: str
    _tree: ast.Module
    _parent: ast.AST
    _field: str
    _index: int | None
    _new: ast.AST

    def code(self, filename: str) -> CodeType:
        """The module with the fault, compiled."""
        held = getattr(self._parent, self._field)
        old = held if self._index is None else held[self._index]
        self._put(ast.fix_missing_locations(ast.copy_location(self._new, old)))
        try:
            return compile(self._tree, filename, "exec", dont_inherit=True)
        finally:
            self._put(old)

    @property
    def index(self) -> ast.AST | None:
        """The subscript whose index it changes, if it changes one."""
        return self._parent if isinstance(self._parent, ast.Subscript) else None

    def _put(self, node: ast.AST) -> None:
        if self._index is None:
            setattr(self._parent, self._field, node)
        else:
            getattr(self._parent, self._field)[self._index] = node


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in source order."""
    tree = ast.parse(source)
    single = _single(tree)
    found = _walk(tree, tree, None, (), "")
    return [m for m in found if not (m.index in single and m.change == "0 → -1")]


def _single(tree: ast.Module) -> set[ast.AST]:
    """The subscripts of lists that hold one element at most."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found: set[ast.AST] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, _Function)):
        for stmt in function.body:
            match stmt:
                case ast.AnnAssign(target=ast.Name(name), value=ast.List([])):
                    found |= _subscripts(function, stmt, name, parents)
    return found


def _subscripts(
    function: _Function, made: ast.AST, name: str, parents: dict[ast.AST, ast.AST]
) -> set[ast.AST]:
    found: set[ast.AST] = set()
    appended = 0
    for use in (n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name):
        match parents[use]:
            case ast.Subscript(slice=ast.Constant(0)) as subscript:
                found.add(subscript)
            case ast.Attribute(attr="append") as called:
                appended += 2 if _loops(called, function, parents) else 1
            case ast.If() | ast.IfExp() | ast.BoolOp() | ast.UnaryOp():
                pass  # whether there is one
            case parent if parent is not made:
                return set()
    return found if appended == 1 else set()


def _loops(node: ast.AST, function: _Function, parents: dict[ast.AST, ast.AST]) -> bool:
    while node is not function:
        node = parents[node]
        if isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.comprehension):
            return True
    return False


def _walk(
    tree: ast.Module,
    node: ast.AST,
    stmt: ast.stmt | None,
    within: tuple[_Function, ...],
    where: str,
) -> Iterator[Mutant]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        many = isinstance(value, list)
        for index, child in enumerate(value if many else [value]):
            if not isinstance(child, ast.AST) or _left_alone(node, field, index, child):
                continue
            inside = (*within, node) if field == "body" and isinstance(node, _Function) else within
            here = child if isinstance(child, ast.stmt) else stmt
            name = _named(child, where, inside)
            if here is not None and isinstance(child, ast.expr | ast.stmt):
                last = max(here.lineno, child.end_lineno or 0)
                for operator, new in _faults(node, field, child, inside):
                    change = f"{_short(child)} → {_short(new)}"
                    place = (node, field, index if many else None, new)
                    found = (here.lineno, last, name, bool(inside), operator, change)
                    yield Mutant(*found, tree, *place)
            yield from _walk(tree, child, here, inside, name)


def _named(node: ast.AST, where: str, within: tuple[_Function, ...]) -> str:
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return f"{where}.{name}".lstrip(".")
        case ast.Assign([ast.Name(name), *_]) | ast.AnnAssign(ast.Name(name)) if not within:
            return f"{where}.{name}".lstrip(".")
    return where


def _left_alone(node: ast.AST, field: str, index: int, child: ast.AST) -> bool:
    match node, child:
        case (_, ast.Assert() | ast.JoinedStr()):
            return True
        case (_, ast.If(test=ast.Name(id="TYPE_CHECKING"))):
            return True
        case (ast.Call(func=ast.Name(id="isinstance")), _):
            return field == "args" and index == 1
        case (ast.Call(func=ast.Name(id="cast")), _):
            return field == "args" and index == 0
    return False


def _faults(
    parent: ast.AST, field: str, node: ast.AST, within: tuple[_Function, ...]
) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.expr) and _is_condition(parent, field) and not _swaps(node):
        yield "negated condition", ast.UnaryOp(ast.Not(), node)
    if isinstance(parent, ast.Slice) and isinstance(node, ast.expr) and field != "step":
        for step in () if isinstance(node, ast.Constant) else (ast.Add(), ast.Sub()):
            yield "slice bound", ast.BinOp(node, step, ast.Constant(1))
    match node:
        case ast.Compare(left, ops, comparators):
            for i, compared in enumerate(ops):
                swapped = [*ops[:i], _COMPARISONS[type(compared)](), *ops[i + 1 :]]
                yield "comparison", ast.Compare(left, swapped, comparators)
        case ast.BoolOp(ast.And(), values):
            yield "and/or", ast.BoolOp(ast.Or(), values)
        case ast.BoolOp(_, values):
            yield "and/or", ast.BoolOp(ast.And(), values)
        case ast.UnaryOp(ast.Not(), operand):
            yield "not removed", operand
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, _ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in _ARITHMETIC:
            yield "arithmetic", ast.AugAssign(target, _ARITHMETIC[type(op)](), value)
        case ast.Constant(bool(value)):
            yield "truth value", ast.Constant(not value)
        case ast.Constant(int(value)):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.Constant(value - 1)
        case ast.Call(ast.Name(name, ctx), args, keywords) if name in _CALLS:
            yield "min/max, any/all", ast.Call(ast.Name(_CALLS[name], ctx), args, keywords)
        case ast.Raise() | ast.Expr(ast.Call()):
            yield "statement deleted", ast.Pass()
        case ast.Return(value) if value is not None and within:
            if (new := _other_result(within[-1], value)) is not None:
                yield "result", ast.Return(new)


def _is_condition(parent: ast.AST, field: str) -> bool:
    conditional = isinstance(parent, ast.If | ast.While | ast.IfExp) and field == "test"
    return conditional or (isinstance(parent, ast.comprehension) and field == "ifs")


def _swaps(test: ast.expr) -> bool:
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1 and isinstance(test.ops[0], _NEGATED_BY_SWAP)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _other_result(function: _Function, value: ast.expr) -> ast.expr | None:
    """Something else of the annotated type; None for a message, and where nothing would change."""
    if isinstance(value, ast.JoinedStr) or function.returns is None:
        return None
    if isinstance(value, ast.Constant):  # True and False are swapped elsewhere; a space: a message
        text = value.value
        if isinstance(text, bool | None) or (isinstance(text, str) and " " in text):
            return None
    kind = ast.unparse(function.returns)
    if kind == "bool":
        return ast.UnaryOp(ast.Not(), value)
    empty = "None" if "None" in kind else _EMPTY.get(kind.partition("[")[0], "None")
    new = ast.parse(empty, mode="eval").body
    return None if ast.dump(new) == ast.dump(value) else new


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
