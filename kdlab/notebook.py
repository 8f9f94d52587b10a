"""What every notebook calls: start(), show_source(), claim().

    ctx = kdlab.start("40_ekd", profile=PROFILE, seed=SEED, out=OUT, fpr=FPR)
    steps = ctx.pick(smoke=5, cpu=400, gpu=50_000)
    ctx.claim("EKD narrows the TPR gap at FPR 1e-2", gap, interval=(low, high), seeds=[0, 1, 2])
"""

import difflib
import inspect
import io
import json
import os
import platform
import random
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kdlab
from kdlab import claims
from kdlab.cache import cache_dir, write_atomic
from kdlab.profiles import PROFILES, budget
from kdlab.results import Stored, stored

_MISSING = object()
_current: "Context | None" = None  # the context of this kernel's notebook, for kdlab.claim()


@dataclass(frozen=True)
class Context:
    """What a notebook run is: made by start(), read by the cells.

    budget: minutes this profile may take.   live: False in smoke, where the path is walked but no
    number computed here is judged.   device: "cpu" or "cuda".   out: a folder of its own.
    """

    notebook: str
    profile: str
    seed: int
    out: Path
    budget: float
    device: str
    knobs: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.profile != "smoke"

    def pick(self, *, smoke: Any, cpu: Any, gpu: Any = _MISSING, study: Any = _MISSING) -> Any:
        """The value for this profile; `gpu` and `study` fall back to `cpu`."""
        value = {"smoke": smoke, "cpu": cpu, "gpu": gpu, "study": study}[self.profile]
        return cpu if value is _MISSING else value

    def stored(self, study: str) -> Stored:
        """A study's stored results: cell name -> result; without any, false and "NOT TESTED"."""
        return stored(study)

    def claim(self, text: str, estimate: float | None = None, interval=None, **options):
        """`claim` bound to this notebook."""
        return claim(text, estimate, interval, ctx=self, **options)

    def save(self, name: str, obj: Any) -> Path:
        """Write an object whole or not at all under `out`; the suffix decides how.

        .json: what JSON holds.   .npy: an array.   .safetensors: dict of tensors.   .png, .html,
        .md, .csv, .txt: bytes or text.   ValueError for another suffix or a path outside `out`.
        """
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out.resolve()):
            raise ValueError(f"save({name!r}) would leave {self.out}; use a name inside it")
        if path.suffix == ".json":
            obj = json.dumps(obj, indent=1) + "\n"
        elif path.suffix == ".npy":
            obj = _npy(obj)
        elif path.suffix == ".safetensors":
            import safetensors.torch

            obj = safetensors.torch.save({k: v.contiguous() for k, v in obj.items()})
        elif path.suffix not in {".png", ".html", ".md", ".csv", ".txt"}:
            raise ValueError(f"save({name!r}): end the name in .json, .npy, .safetensors, .png, "
                             ".html, .md, .csv or .txt")
        write_atomic(path, obj)
        return path


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def start(notebook: str, profile: str = "cpu", seed: int = 0, out: str | Path | None = None,
          **knobs: Any) -> Context:
    """Begin a notebook: check the profile, seed everything, say in one line what runs where.

    profile: "smoke" | "cpu" | "study" | "gpu".   seed: 0 or more.   out: folder for what the
    notebook writes; None or "" for one in the cache.   knobs: the notebook's own parameters.
    On CPU a second run with the same parameters and thread count repeats bit for bit.
    ValueError for an unknown profile, a bad seed, or "gpu" where torch sees no CUDA device.
    """
    global _current
    if profile not in PROFILES:
        near = difflib.get_close_matches(str(profile).lower(), PROFILES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"PROFILE is one of {', '.join(PROFILES)}, not {profile!r}{hint}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"SEED is a whole number from 0 to 2**32 - 1, not {seed!r}")
    if profile == "gpu" and not torch.cuda.is_available():
        raise ValueError("PROFILE = 'gpu' wants a CUDA device and torch sees none here; "
                         "use 'cpu', or run `kdlab doctor`")
    if profile == "smoke" and not os.environ.get("KDLAB_HEADLESS"):  # "0": widgets all the same
        os.environ["KDLAB_HEADLESS"] = "1"
    device = "cuda" if profile == "gpu" else "cpu"
    _seed_everything(seed, device)
    folder = Path(out) if out else cache_dir("notebooks", notebook)
    folder.mkdir(parents=True, exist_ok=True)
    _current = Context(notebook, profile, seed, folder, budget(notebook, profile), device, knobs)
    print(_line(_current))
    return _current


def _seed_everything(seed: int, device: str) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Scatter and index-add on CPU are ordered only when asked; on a GPU the cost is not small.
    torch.use_deterministic_algorithms(device == "cpu", warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, protects from nothing


def _line(ctx: Context) -> str:
    where = (torch.cuda.get_device_name() if ctx.device == "cuda"
             else f"CPU with {torch.get_num_threads()} threads")
    limit = "no limit" if ctx.budget == float("inf") else f"{60 * ctx.budget:.0f} s"
    return (f"{ctx.notebook} | profile {ctx.profile}, budget {limit} | {where} | seed {ctx.seed} | "
            f"kdlab {kdlab.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}")


class Source:
    """A function's source with its place: coloured in a notebook, plain text elsewhere."""

    def __init__(self, place: str, code: str):
        self.place, self.code = place, code

    def __repr__(self) -> str:
        return f"# {self.place}\n{self.code}"

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        # JupyterLab's sheet would put its own, perhaps dark, ground under these inks.
        ink = "color: #222222; background: #f8f8f8"
        body = highlight(self.code, PythonLexer(), HtmlFormatter(noclasses=True, prestyles=ink))
        return f"<div><code>{self.place}</code>{body}</div>"


def show_source(fn: Any) -> None:
    """Show the source of a function, class or module, with its file and first line.

    Draws in a live notebook and in an executed copy alike, where `fn??` prints nothing.
    ValueError for an object that has no Python source (built in, or typed at a prompt).
    """
    from IPython.display import display

    target = inspect.unwrap(fn) if callable(fn) else fn
    try:
        lines, first = inspect.getsourcelines(target)
        path = Path(inspect.getsourcefile(target) or "?").resolve()
    except (TypeError, OSError) as error:
        raise ValueError(f"{fn!r} has no Python source to show") from error
    package = Path(kdlab.__file__).resolve().parents[1]
    place = path.relative_to(package) if path.is_relative_to(package) else path.name
    code = textwrap.dedent("".join(lines)).rstrip() + "\n"
    display(Source(f"{place}, line {max(first, 1)}", code))


def claim(text: str, estimate: float | None = None, interval=None, *, direction: str = "greater",
          threshold: float = 0.0, seeds=None, source: str = "live", unit: str = "",
          ledger: str | Path | None = None, ctx: Context | None = None) -> claims.Claim:
    """Judge a claim by its numbers, print the verdict and keep it in the ledger.

    estimate, interval, direction, threshold: see `kdlab.claims.verdict`; the verdict is computed
    from them, never typed.   seeds: the seeds behind the estimate; None: this run's.
    source: "live", or the study the numbers were stored by; one without results is NOT TESTED.
    ledger: a JSON file; None: claims.json in the notebook's `out`.   ctx: None: the last start().
    In the smoke profile nothing is judged: NOT TESTED.
    """
    ctx = ctx or _current
    if ctx is None:
        raise ValueError("claim() needs a started notebook; call kdlab.start(...) first")
    word, why = claims.verdict(estimate, interval, direction, threshold)
    if not ctx.live:
        word, why = claims.NOT_TESTED, "smoke profile: the path works, nothing is judged"
    elif source != "live" and not (results := stored(source)):
        word, why = claims.NOT_TESTED, f"no stored results; run `kdlab study {source}`"
    elif source != "live" and results.missing:
        why += f" ({len(results.missing)} of the study's cells are NOT TESTED)"
    if seeds is None and source == "live":
        seeds = [ctx.seed]
    made = claims.Claim(ctx.notebook, text, word, why, *claims.numbers(estimate, interval),
                        direction, float(threshold), unit, claims.seed_list(seeds), source,
                        ctx.profile)
    claims.record(made, Path(ledger) if ledger else ctx.out / "claims.json")
    print(made)
    return made
