"""Chat templates, judged by their syntax alone: a template from a Hub is never rendered and never compiled here.

A template is a program of Jinja.  The engine compiles it with the dialect of transformers (sandboxed, with
``{% generation %}``, ``break`` and ``continue``), so what does not parse in that dialect could not be served.  The
sandbox keeps it from Python's internals and there is nothing that it could include; asking for either is no
accident.  What the sandbox does not stop is a bomb: Jinja computes constant expressions while it compiles, so
``'a' * 10**9`` takes a gigabyte before the first request.  Such growth is counted here and never computed.  A loop
that never ends is not to be seen in the syntax; it shows in the checks of a candidate.
"""

import math
from typing import cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tasks._weights.names import LARGEST, Kind, refusal, shown

MOST_GROWTH = 2**20
"""Characters that the constant expressions of a template may come to, by a generous estimate."""

_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_GROWING = (nodes.Mul, nodes.Pow, nodes.Mod, nodes.Filter)


class _Generation(Extension):
    """transformers' mark around what the assistant said; here it only has to parse."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Constants(NodeTransformer):
    """Folds constants as Jinja's optimizer does, but counts first what they would grow to."""

    def __init__(self, path: str, context: EvalContext) -> None:
        self._path, self._context = path, context
        self._growth = 0

    def generic_visit(self, node: nodes.Node, *args: object, **kwargs: object) -> nodes.Node:
        folded = super().generic_visit(node, *args, **kwargs)
        if isinstance(folded, _GROWING):
            self._count(folded)
        if not isinstance(folded, nodes.Expr):
            return folded
        try:
            return nodes.Const.from_untrusted(folded.as_const(self._context), lineno=folded.lineno)
        except nodes.Impossible:
            return folded

    def _count(self, node: nodes.Expr) -> None:
        """Add what the operation may come to, if it can be computed; raises ``Refused`` beyond the limit."""
        operands = (child.value if isinstance(child, nodes.Keyword) else child for child in node.iter_child_nodes())
        try:
            # This computes what was counted before: inner operations come first.
            values = [cast("nodes.Expr", operand).as_const(self._context) for operand in operands]
        except nodes.Impossible:
            return
        self._growth += _growth(node, values)
        if self._growth > MOST_GROWTH:
            raise refusal(self._path, f"holds a chat template whose constants, at line {node.lineno}, grow too large")


def judge_template(path: str, template: str) -> None:
    """Raise ``Refused`` when a chat template in the file ``path`` is none, or too large, or reaches outside."""
    if (length := len(template.encode(errors="replace"))) > LARGEST[Kind.TEMPLATE]:
        raise refusal(path, f"holds a chat template of {length:,} bytes, and {LARGEST[Kind.TEMPLATE]:,} is the most")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    try:
        tree = environment.parse(template)
        tree = _Constants(path, EvalContext(environment)).visit(tree)
        _refuse_reach(path, tree)
    except TemplateError as error:
        raise refusal(path, f"holds a chat template that Jinja cannot parse: {error}") from error
    except RecursionError as error:
        raise refusal(path, "holds a chat template that is nested too deeply") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise refusal(path, "holds a chat template with constants that Jinja cannot compute") from error


def _refuse_reach(path: str, tree: nodes.Template) -> None:
    """Raise ``Refused`` for a template that asks for another file or for an attribute of Python's own."""
    if other := next(tree.find_all(_OTHER_FILES), None):
        raise refusal(path, f"holds a chat template that asks for another file at line {other.lineno}")
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Filter)):
        for name in _names(node):
            if name.startswith("__") and name.endswith("__"):
                raise refusal(path, f"holds a chat template that reaches for {shown(name)} at line {node.lineno}")


def _names(node: nodes.Expr) -> list[str]:
    """Return the names by which an expression may look something up."""
    if isinstance(node, nodes.Getattr):
        return [node.attr]
    return [constant.value for constant in node.find_all(nodes.Const) if isinstance(constant.value, str)]


def _growth(node: nodes.Expr, values: list[object]) -> int:
    """Return a generous estimate of the characters that the operation makes of these operands."""
    texts = any(not isinstance(value, int | float) for value in values)
    if isinstance(node, nodes.Mod) or (isinstance(node, nodes.Filter) and node.name == "format"):
        return MOST_GROWTH + 1 if texts else 0  # a width within the text is a number as well
    if isinstance(node, nodes.Mul) and not texts:
        return 0
    return math.prod(map(_extent, values))


def _extent(value: object) -> int:
    """Return by how much a constant can make another one grow: its length, or its value where it is a number."""
    if value is None or isinstance(value, str):
        return len(value or "") + 1
    if isinstance(value, int | float):
        return int(min(abs(value), MOST_GROWTH)) + 1
    if isinstance(value, list | tuple):
        return sum(map(_extent, value)) + 1
    if isinstance(value, dict):
        return sum(map(_extent, (*value, *value.values()))) + 1
    return MOST_GROWTH + 1  # nothing that a template needs
