"""A form: every field of a config (or of a loss's constructor) under a control that fits it."""

import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ipywidgets
import yaml
from pydantic import BaseModel, ValidationError

from kdlab.progress import headless
from kdlab.train.config import explain
from kdlab.ui.board import ROW, STYLE, Board, Copy, cases, helped, problem_line, report_error
from kdlab.ui.controls import Control, caption, span
from kdlab.ui.knobs import line, plain
from kdlab.ui.panel import DELAY, debounce
from kdlab.ui.schema import MISSING, Source, controls, settings

HEADS = ("field", "value", "unit", "range", "what it is")


def form(
    source: Source, only: Iterable[str] | None = None, values: Mapping[str, Any] | None = None, *,
    ranges: Mapping[str, Any] | None = None, words: Mapping[str, str] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None, title: str = "",
    delay: float = DELAY,
) -> "Form":  # fmt: skip
    """A form over a pydantic model or a callable; a cell that ends in it shows it.

    For only, values, ranges and words see `controls`; `values` may also hold what has no control
    and is handed on.   presets: name -> values that differ from the first ones.   delay: seconds
    the hand must rest before `on_change` functions are called.
    With KDLAB_HEADLESS set there are no widgets: the form shows as a table of its fields.
    Raises ValueError, in one line, for a preset or for first values that the source refuses.
    """
    return Form(source, controls(source, only, values, ranges=ranges, words=words), values or {},
                presets or {}, title, delay)


class Form:
    """`value` is the validated config, `on_change(fn)` hears of the next, `box` is the widget."""

    def __init__(self, source: Source, controls: Mapping[str, Control],
                 values: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]],
                 title: str = "", delay: float = DELAY):
        self.source, self.controls, self.title = source, dict(controls), title
        self.given = {name: value for name, value in values.items() if name not in controls}
        self.board = self.box = None
        self._listeners: list[Callable] = []
        self._defaults = {name: control.value for name, control in controls.items()}
        for case, wanted in cases(self._defaults, presets).items():
            try:
                self._build(wanted)
            except Exception as error:
                what = f"preset '{case}'" if case in presets else "the first values"
                raise ValueError(f"{what}: {_line(error)}") from error
        self._result, self._error = self._build(self._defaults), None
        if not headless():
            self._tell = debounce(delay)(self._call)
            self._lay_out(presets)

    @property
    def value(self) -> Any:
        """The config (or what the callable made).   ValueError while the form says nothing valid"""
        if self._error is not None:
            raise ValueError(f"the form is not valid: {_line(self._error)}") from self._error
        return self._result

    @property
    def values(self) -> dict[str, Any]:
        """name -> what its control says, valid or not."""
        return self.board.values if self.board else dict(self._defaults)

    def on_change(self, fn: Callable[[Any], None]) -> Callable[[Any], None]:
        """Call fn(value) after every change to something valid, once the hand rests; a decorator.

        What fn raises is shown in the form.
        """
        self._listeners.append(fn)
        return fn

    def yaml(self, full: bool = False) -> str:
        """The values as YAML: what differs from the source's defaults ("{}" for nothing), or all.

        For a model, `kdlab.train.config.load_config` reads it back to an equal config.
        """
        if isinstance(self.value, BaseModel):
            told = self.value.model_dump(mode="json", exclude_defaults=not full)
        else:
            told, known = {}, settings(self.source)
            for name, value in (self.given | self.values).items():
                default = known[name].default
                if full or default is MISSING or plain(value) != plain(default):
                    told[name] = plain(value)
            told = {name: value for name, value in told.items() if _plain(value)}
        return yaml.safe_dump(told, sort_keys=False)

    def _build(self, values: dict[str, Any]) -> Any:
        values = self.given | values
        if isinstance(self.source, type) and issubclass(self.source, BaseModel):
            return self.source.model_validate(values)
        return self.source(**values)

    def _lay_out(self, presets: Mapping[str, Mapping[str, Any]]) -> None:
        self.board = Board(self.controls, presets, self._changed)
        self.knobs, self.preset = self.board.knobs, self.board.presets
        self.button, self.reset = self.board.button, self.board.reset
        self.status, self.copy = ipywidgets.HTML(), Copy()
        self.full = ipywidgets.Checkbox(description="YAML of all fields, not only of changed ones",
                                        indent=False, layout={"width": "min(100%, 480px)"})
        self.full.observe(lambda _: self._write(), names="value")
        self.notes = {name: ipywidgets.HTML() for name in self.knobs}
        fields = [helped(knob, self.controls[name].help, self.notes[name])
                  for name, knob in self.knobs.items()]
        for knob in self.knobs.values():
            knob.layout.width = "100%"
        grid = ipywidgets.GridBox(fields, layout={
            "grid_template_columns": "repeat(auto-fill, minmax(min(100%, 300px), 1fr))",
            "grid_gap": "12px 24px", "width": "100%"})
        row = ipywidgets.HBox([self.button, self.status], layout=ROW)
        head = f"<b>{html.escape(self.title)}</b>" if self.title else ""
        self.copy.fold(True)
        self.box = ipywidgets.VBox([
            ipywidgets.HTML(STYLE + head), *self.board.head, grid, row, self.full, self.copy.area])
        self.box.add_class("kdlab")
        self._write()

    def _changed(self) -> None:
        problems, self._error = self.board.problems, None
        try:
            if problems:
                raise ValueError("; ".join(problems.values()))
            self._result = self._build(self.values)
        except Exception as error:
            self._error = error
        self._mark(problems)
        self._write()
        if self._error is None and self._listeners:
            self.status.value = "<span role='status'>computing…</span>"
            self._tell(self._result)

    def _mark(self, problems: dict[str, str]) -> None:
        """The error in one line beside the button, and what concerns a field below the field."""
        if problems:
            self.status.value = problem_line(list(problems.values()))
        else:
            self.status.value = report_error(self._error, "") if self._error else ""
        said = dict(problems)
        if isinstance(self._error, ValidationError):
            for part in self._error.errors(include_url=False):
                if part["loc"]:
                    said[str(part["loc"][0])] = part["msg"].removeprefix("Value error, ")
        for name, note in self.notes.items():
            note.value = problem_line([said[name]], "") if name in said else ""

    def _write(self) -> None:
        self.copy.area.placeholder = "mend the fields above first" if self._error else ""
        self.copy.say("" if self._error else self.yaml(self.full.value))

    def _call(self, value: Any) -> None:
        if self._error is not None or value is not self._result:
            return  # what was waited for has changed
        try:
            for fn in self._listeners:
                fn(value)
        except BaseException as error:  # a callback has no cell to stop; sys.exit ends no kernel
            self.status.value = report_error(error, "")
        else:
            self.status.value = ""

    def rows(self) -> list[tuple[str, ...]]:
        """The table: field, value, unit, range, what it is."""
        return [(caption(name, c._replace(unit="")), line(self.values[name]) or "none",
                 c.unit, span(c), c.help) for name, c in self.controls.items()]

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        shown = self.box._repr_mimebundle_() if self.box else {}
        return {**shown, "text/html": self._html(), "text/plain": self._text()}

    def _text(self) -> str:
        rows = [HEADS, *self.rows()]
        wide = [max(len(row[k]) for row in rows) for k in range(len(HEADS) - 1)]
        told = ["  ".join([*map(str.ljust, row, wide), row[-1]]).rstrip() for row in rows]
        return "\n".join([self.title, *told] if self.title else told)

    def _html(self) -> str:
        head = "".join(f"<th scope='col' style='text-align:left'>{name}</th>" for name in HEADS)
        body = "".join(
            f"<tr><th scope='row' style='text-align:left'>{html.escape(row[0])}</th>" + "".join(
                f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>" for row in self.rows())
        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _line(error: BaseException) -> str:
    return explain(error) if isinstance(error, ValidationError) else str(error)


def _plain(value: Any) -> bool:
    try:
        yaml.safe_dump(plain(value))
    except yaml.YAMLError:
        return False
    return True
