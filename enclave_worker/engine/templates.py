"""Chat templates: a model folder's own jinja2, run where it can reach nothing.

The template is data of the model, and models come from anywhere. It runs in jinja2's immutable
sandbox with less than that offers: only the methods and filters real templates use, no operation
that makes large objects out of small ones, a bounded range, bounded output; no clock, no file, no
import. A template that merely wastes time is not stopped: it is measured with the model.
"""

import json
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Sequence_
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from .errors import TemplateError

# The largest templates in use are some 20 kB.
SOURCE_MAX_CHARS = 64 * 1024
# As many characters as a request body may carry, twice over: more means the template multiplies.
OUTPUT_MAX_CHARS = 16 * 1024 * 1024
# Templates count messages, and no conversation has more.
RANGE_MAX = 10_000
# str * int may make strings up to this length.
REPEAT_MAX = 1_000
# Of the template's own words in an error.
REASON_MAX_CHARS = 200

_LOOP = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0")
) | frozenset(("previtem", "nextitem", "changed", "cycle"))
_STR = ["startswith", "endswith", "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines"]
_STR += ["lower", "upper", "title", "capitalize", "find", "count", "index", "isdigit", "replace"]
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_STR),
    dict: frozenset(["get", "items", "keys", "values"]),
    list: frozenset(["index", "count"]),
    tuple: frozenset(["index", "count"]),
}
_FILTERS = ["abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby"]
_FILTERS += ["int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject"]
_FILTERS += ["rejectattr", "reverse", "round", "select", "selectattr", "sort", "string", "title"]
_FILTERS += ["trim", "unique", "upper"]


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, special: Mapping[str, str] | None = None) -> None:
        """Compile; raises TemplateError.

        Args:
            source: jinja2 text.
            special: special tokens the template may name, such as bos_token.
        """
        if len(source) > SOURCE_MAX_CHARS:
            raise TemplateError(
                f"chat template: found {len(source)} characters, expected at most "
                f"{SOURCE_MAX_CHARS}"
            )
        self._special = dict(special or {})
        try:
            self._template = _Environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
            raise TemplateError(f"chat template does not compile: {type(error).__name__}") from None

    def render(
        self,
        messages: Sequence_[Mapping[str, Any]],
        tools: Sequence_[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the prompt's text; raises TemplateError, whose text never quotes a message.

        Args:
            messages: parsed JSON objects with role and content.
            tools: parsed JSON tool definitions.
            add_generation_prompt: end with the opening of the assistant's turn.
        """
        values = {
            **self._special,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(values):
                size = _bounded(size + len(part))
                parts.append(part)
        except TemplateError:
            raise
        except Exception as error:
            raise TemplateError(f"chat template failed: {type(error).__name__}") from None
        return "".join(parts)


class TemplateRefusal(TemplateError):  # noqa: N818 - states a fact, as EngineBusy does
    """The template called raise_exception: it does not take these messages.

    Attributes:
        reason: the template's words. They may quote a message: for the caller only, never a log.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason apart from the message."""
        super().__init__("chat template: found messages it does not accept")
        self.reason = reason[:REASON_MAX_CHARS]


class _Generator(CodeGenerator):
    """Compiles `~` into a call that checks the length; the operators proper are intercepted."""

    # jinja2's name and typing; typing.override needs Python 3.12
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # type: ignore[explicit-override]  # noqa: N802
        """Write the call."""
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, narrowed."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        """Set up as Hugging Face does (block trimming, loop controls), with fewer names."""
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters.update(join=_join, replace=_replace, safe=str, tojson=_tojson)
        self.globals = {
            "dict": dict,
            "namespace": Namespace,
            "raise_exception": _refuse,
            "range": _range,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # type: ignore[explicit-override]
        """Allow the listed methods, and what a loop tells about itself; nothing else."""
        if isinstance(obj, LoopContext):
            return attr in _LOOP
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return attr in _METHODS.get(type(obj), ()) and super().is_safe_attribute(obj, attr, value)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[explicit-override]
        """Call; str.replace goes through the check of the filter."""
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and getattr(obj, "__name__", "") == "replace":
            return _replace(owner, *args, **kwargs)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # type: ignore[explicit-override]
        """Allow arithmetic on numbers, sums of texts and lists, and short repetitions."""
        if operator == "+" and isinstance(left, (str, list)) and isinstance(right, (str, list)):
            _bounded(len(left) + len(right))
            return left + right  # type: ignore[operator]  # str + list is the template's error
        if operator == "*" and isinstance(left, str) and type(right) is int:
            if len(left) * right <= REPEAT_MAX:
                return left * right
        elif _is_number(left) and _is_number(right) and operator != "**":
            return (
                left + right
                if operator == "+"
                else (left * right if operator == "*" else left % right)
            )
        raise TemplateError(f"chat template: found {operator!r} on operands it is not allowed on")

    def concatenate(self, parts: Iterable[Any]) -> str:
        """The `~` operator."""
        texts = [str(part) for part in parts]
        _bounded(sum(map(len, texts)))
        return "".join(texts)


def _bounded(size: int) -> int:
    """Return the size, refusing what no prompt needs."""
    if size > OUTPUT_MAX_CHARS:
        raise TemplateError(f"chat template: found over {OUTPUT_MAX_CHARS} characters of output")
    return size


def _is_number(value: Any) -> bool:
    """Whether this is an int that stays small, or a float."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)


def _refuse(message: object = "") -> NoReturn:
    """raise_exception: how templates say what they do not accept."""
    raise TemplateRefusal(str(message))


def _range(*bounds: int) -> range:
    """A range of bounded length."""
    values = range(*bounds)
    if len(values) > RANGE_MAX:
        raise TemplateError(f"chat template: found a range over {RANGE_MAX}")
    return values


def _join(values: Iterable[Any], separator: str = "") -> str:
    """The join filter, without its attribute form."""
    texts = [str(value) for value in values]
    _bounded(sum(map(len, texts)) + len(texts) * len(str(separator)))
    return str(separator).join(texts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    """The replace filter and method."""
    text, old, new = str(text), str(old), str(new)
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """JSON as templates expect it: characters as they are, nothing escaped for HTML."""
    if indent is not None and (type(indent) is not int or not 0 <= indent <= 8):
        raise TemplateError("chat template: expected a tojson indent from 0 to 8")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
