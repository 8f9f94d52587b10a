"""How a judged model is told: the table for a terminal, the figures."""

import re
from collections.abc import Sequence
from pathlib import Path

from kdlab.evaluate.pairs import EXPECTED

SHOWN = (1e-2, 1e-3, 1e-4)  # FPRs of the table; the JSON has EKD's six


def draw(out: Path, drawn: dict[str, dict]) -> list[str]:
    """Write the figures; their paths."""
    from kdlab.plots.evaluated import det, worst_sheet
    from kdlab.plots.show import save_png
    from kdlab.plots.verification import roc as roc_figure
    from kdlab.plots.verification import score_histograms

    names = {name: short(name, list(drawn)[:k]) for k, name in enumerate(drawn)}
    figures, pairs, curves, mistaken = {}, {}, {}, {}
    for name, parts in drawn.items():
        fpr, tpr = parts["curve"]
        pairs[names[name]] = parts["pairs"]
        kept = fpr >= EXPECTED / parts["pairs"][1]
        curves[names[name]] = fpr[kept], tpr[kept]
        if ((fpr > 0) & (tpr < 1)).any():
            mistaken[names[name]] = fpr, tpr
        figures[f"scores-{names[name]}"] = (
            score_histograms(parts["genuine"], parts["impostor"], log_counts=True,
                             title=f"{name}: similarity of genuine and impostor pairs"),
            f"Histograms of cosine similarity on {name}: {len(parts['genuine']):,} genuine and "
            f"{len(parts['impostor']):,} impostor pairs.")
        figures[f"worst-{names[name]}"] = (
            worst_sheet(*parts["worst"], title=f"{name}: the pairs most wrong"),
            f"The genuine pairs of least and the impostor pairs of greatest similarity on {name}.")
    ends = f"each curve ends where its set has {EXPECTED} impostor pairs above the threshold"
    figures["roc"] = (roc_figure(curves, subtitle=ends),
                      f"ROC curves of {', '.join(names.values())}, the false-positive rate on a "
                      "logarithmic axis.")
    if mistaken:
        figures["det"] = (det(mistaken, {name: pairs[name] for name in mistaken}),
                          f"DET curves of {', '.join(mistaken)}: both error rates on normal "
                          "deviates.")
    for name, (fig, alt) in figures.items():
        save_png(fig, out / f"{name}.png", alt)
    return [str(out / f"{name}.png") for name in figures]


def words(report: dict) -> str:
    """The table, for a terminal."""
    lines = [f"{report['model']}: TPR with exact 95 % intervals",
             f"{'set':16}{'pictures':>9}{'impostors':>12}{'EER':>8}"
             + "".join(f"{f'at {fpr:g}':>24}" for fpr in SHOWN) + f"{'rank-1':>9}"]
    for name, result in report["sets"].items():
        cells = []
        for point in result["tpr"]:
            if point["fpr"] in SHOWN:
                cells.append("too few pairs" if not point["supported"] else
                             f"{point['tpr']:.1%} [{point['low']:.1%}, {point['high']:.1%}]")
        rank = f"{result['rank1']:.1%}" if "rank1" in result else "-"
        lines.append(f"{short(name)[:15]:16}{result['pictures']:9,}{result['impostor']:12,}"
                     f"{result['eer']:8.2%}" + "".join(f"{cell:>24}" for cell in cells)
                     + f"{rank:>9}")
        if "accuracy" in result:
            a = result["accuracy"]
            lines.append(f"{'':16}accuracy of {a['folds']} folds {a['mean']:.2%} +- "
                         f"{a['spread']:.2%}, exact [{a['low']:.2%}, {a['high']:.2%}]")
        for group, part in result.get("groups", {}).items():
            lines.append(f"{'':16}group {group}: EER {part['eer']:.2%}, "
                         + ", ".join(f"TPR at {f} {t:.1%}" for f, t in part["tpr"].items()))
    lines += [f"figures: {', '.join(report['figures'])}"] * bool(report["figures"])
    return "\n".join(lines)


def short(name: str, taken: Sequence[str] = ()) -> str:
    """A set's name as a file or a legend has it; `taken` are sets named before it."""
    path = Path(name)
    plain = re.sub(r"[^\w.-]+", "_", path.stem if path.suffix in (".rec", ".bin") else path.name)
    before = [short(other) for other in taken]
    return (plain or "set") + (f"-{before.count(plain) + 1}" if plain in before else "")
