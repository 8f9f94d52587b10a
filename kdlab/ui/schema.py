"""Controls from what is written anyway: a config's schema, or a loss's constructor."""

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel

from kdlab.train.config import unknown
from kdlab.ui.controls import Control, choice, maybe, number, reaching, text, toggle
from kdlab.ui.knobs import plain

Source = type[BaseModel] | Callable[..., Any]
MISSING = inspect.Parameter.empty
LINES = (list, tuple, dict, collections.abc.Sequence, collections.abc.Mapping)  # typed as YAML


class Setting(NamedTuple):
    """What a source says of one of its values. typical: the range a slider should offer."""

    annotation: Any
    default: Any
    unit: str = ""
    help: str = ""
    typical: tuple[float, float] | None = None
    log: bool = False
    low: float = -math.inf
    high: float = math.inf


def controls(
    source: Source, only: Iterable[str] | None = None, values: Mapping[str, Any] | None = None, *,
    ranges: Mapping[str, Any] | None = None, words: Mapping[str, str] | None = None,
) -> dict[str, Control]:  # fmt: skip
    """name -> Control for the fields of a pydantic model or the arguments of a callable.

    only: these, in this order; None: all that can be typed (no tensor, no function).   values:
    where controls stand at first, else at the defaults.   ranges: name -> (low, high) or
    (low, high, "log") for a number, a list of the values to choose from, or a Control of your own.
    words: name -> a sentence of help, in place of the field's description.
    Literal -> choice, bool -> toggle, number -> slider with a field: over the schema's `typical`
    range, else over 0.1 to 10 times the default. Lists, mappings and text -> a line. None allowed
    -> a switch before the control, or one more choice.
    Raises ValueError for a name the source does not know, one without a value, and a bad range.
    """
    known = settings(source)
    values, ranges, words = dict(values or {}), dict(ranges or {}), dict(words or {})
    wanted = list(known) if only is None else list(only)
    for name in [*wanted, *values, *ranges, *words]:
        if name not in known:
            raise ValueError(unknown("field", name, known))
    found = {}
    for name in wanted:
        own, value = known[name], values.get(name, known[name].default)
        fits = value is not MISSING and _typable(own.annotation, value)
        if fits:
            made = _control(name, own, value, ranges.get(name))
            unit, told = made.unit or own.unit, words.get(name) or made.help or own.help
            found[name] = made._replace(label=made.label or name, unit=unit, help=told)
        elif only is not None:
            raise ValueError(f"field '{name}' has no control: " + (
                f"it needs a value, such as values={{'{name}': ...}}" if value is MISSING
                else f"a {type(value).__name__} cannot be typed"))
    return found


def settings(source: Source) -> dict[str, Setting]:
    """What a source can be told, in its own order."""
    if isinstance(source, type) and issubclass(source, BaseModel):
        return {name: _field(field) for name, field in source.model_fields.items()}
    made = source.__init__ if isinstance(source, type) else source
    hints = typing.get_type_hints(made)
    return {name: Setting(hints.get(name, type(p.default)), p.default)
            for name, p in inspect.signature(source).parameters.items()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _field(field) -> Setting:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds = {key: getattr(part, key) for part in field.metadata
              for key in ("ge", "gt", "le", "lt") if getattr(part, key, None) is not None}
    default = MISSING if field.is_required() else field.get_default(call_default_factory=True)
    return Setting(
        field.annotation, default, extra.get("unit", ""), field.description or "",
        extra.get("typical"), extra.get("scale") == "log",
        bounds.get("ge", bounds.get("gt", -math.inf)), bounds.get("le", bounds.get("lt", math.inf)))


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The annotation without None and remarks, and whether None was allowed."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        optional = len(parts) < len(typing.get_args(annotation))
        return (_kind(parts[0])[0] if len(parts) == 1 else Any), optional
    return annotation, annotation is type(None)


def _typable(annotation: Any, value: Any) -> bool:
    """Can a person type it? No tensor, no function, even where None stands for it."""
    kind, _ = _kind(annotation)
    origin = typing.get_origin(kind) or kind
    easy = (bool, int, float, str, Path, Any, Literal, *LINES)
    if origin not in easy and not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    try:
        yaml.safe_dump(plain(value))
    except yaml.YAMLError:
        return False
    return True


def _control(name: str, own: Setting, value: Any, given: Any) -> Control:
    if isinstance(given, Control):
        return reaching(given, value)._replace(value=value)
    kind, optional = _kind(own.annotation)
    if typing.get_origin(kind) is Literal:
        given = list(typing.get_args(kind)) if given is None else given
    if isinstance(given, list):
        given = given if not optional or None in given else [*given, None]
        return choice({"none" if v is None else str(v): v for v in given}, value, name)
    if kind is bool:
        if optional:
            return choice({"none": None, "yes": True, "no": False}, value, name)
        return toggle(value, name)
    if kind in (int, float):
        start = value if value is not None else own.default
        if start is None and not (given or own.typical):
            return text(value, label=name, none=optional)
        low, high, log = _range(name, own, start, given, kind is int)
        start = min(high, max(low, 1 if kind is int else 1.0)) if start is None else start
        made = number(low, high, start, label=name, log=log, whole=kind is int)
        return maybe(made, value) if optional else made
    return text(plain(value), label=name, plain=kind in (str, Path), none=optional)


def _range(name: str, own: Setting, value: float, given: Any, whole: bool):
    """(low, high, log) of a number's slider."""
    if given is not None:
        if not isinstance(given, tuple) or given[2:] not in ((), ("log",)) or len(given) < 2:
            raise ValueError(f"ranges: '{name}' wants (low, high), (low, high, \"log\"), a list of "
                             f"values or a Control, not {given!r}")
        return *given[:2], given[2:] == ("log",)
    if own.typical:
        return *own.typical, own.log
    if value > 0:  # ours: a factor of ten either way says most about a positive number
        low, high, log = value / 10, value * 10, True
    else:
        reach = -10 * value or (10 if whole else 1)
        low, high, log = 10 * value, reach, False
    low, high = max(low, own.low), min(high, own.high)
    low = (max(1, round(low)) if log else low) if whole else low
    return (low, high, log) if low < high else (value, value + 1, False)
