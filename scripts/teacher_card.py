"""Write what the study `teacher` found: the teacher's model card and the table in data/README.md.

    kdlab study teacher
    python scripts/teacher_card.py

The card is data/teachers/ir_teacher.md; the table fills the block between <!-- protocols --> and
<!-- /protocols -->. Nothing is computed here: every number is in data/results/teacher/summary.json.
"""

import re

import kdlab
from kdlab.world.protocols import PROTOCOLS

BLOCK = re.compile(r"(<!-- protocols -->\n).*?(<!-- /protocols -->)", re.S)
NAMES = {"dlib_resnet29": "dlib ResNet-29", "ir_teacher": "ir_teacher", "ir_student": "ir_student"}
PHOTOGRAPHS = "itself: ORL / AT&T, photographs of 40 persons"
CARD = """# ir_teacher: a face network that never saw a person

**What it is.** An IR network (`kdlab.models.iresnet.ir_teacher`): {parameters:,} parameters,
{D}-d embedding, {bytes:.1f} MB in float16. Input: the "arcface" crop shrunk to 48 x 48, RGB,
(x - 127.5) / 127.5. With it come its classifier rows, `centres` ({C}, {D}): row k is identity k of
the face world of seed {seed}. `kdlab.teachers.load_teacher("ir_teacher")` reads it. No mean is
subtracted, so that the rows keep their angles to the embeddings; the mean cosine over all pairs of
the protocol "{first}", nearly all of strangers, is {cosine:+.3f}.

**What it is for.** The teacher of methods that need class rows, logits or feature maps, whose
students then train on the same rendered identities; not for recognising anybody.

**Data.** {C:,} rendered identities, {pictures} pictures each, from `kdlab.world`: no photograph and
no person. World key `{world}`.

**Recipe.** ArcFace (scale 64, margin 0.5), SGD, {epochs} epochs, batch {batch}, cosine schedule,
mirrored at random, seed {run}. Peak learning rate {lr:g}, chosen on validation identities for
ir_student, not for the teacher{edge}. ir_student was trained by the same recipe.

**Results.** Identities that no network was trained on, and the ORL photographs. Equal error rate /
TPR at FPR 1e-3 / rank-1; embedding of picture plus mirror; ir_student: mean of {seeds} seeds.

{table}

**Is it worth learning from?** On "{compared}" with {people} people, its TPR at FPR {fpr} minus
ir_student's:
{estimate:+.1f} points, 95 % interval over people and the students' seeds [{low:+.1f}, {high:+.1f}].
We asked for {least:.0f} points at least. The estimate is {side} that; the claim that the whole
interval is: {verdict}.

**Limits.** Rendered faces are not photographs: for those, read the row "orl". One training seed.
Pictures of 48 pixels. Ancestry, sex and age are parameters of the renderer, three ancestries in
all; what holds for its groups need not hold for people.

**Licence.** MIT, as kdlab; the head behind the renderer is CC0 (`../LICENSE-head.md`).

**Made by** `kdlab study teacher` (80 minutes, run twice side by side on two cores), with its
results in `data/results/teacher`; to train it anew, delete
`data/results/teacher/cells/{cell}.json` first. On another machine or with another PyTorch its
bits, and so its hash, may differ. This card is of the weights with SHA-256 `{hash}` and is
written by `python scripts/teacher_card.py`.
"""


def size(name: str) -> str:
    """Persons x pictures: "150 x 4", "150 x (4 + 4)" for two sides, "+ 900 strangers"."""
    if name == "orl":
        return "40 x 10"
    plan = PROTOCOLS[name]
    each = plan["pictures"] if plan["b"] is None else f"({plan['pictures']} + {plan['pictures']})"
    strangers = plan["identities"] * plan.get("distractors", 0)
    return f"{plan['identities']} x {each}" + (f" + {strangers:,} strangers" if strangers else "")


def rate(fpr: float) -> str:
    """0.001 as 1e-3."""
    return f"{fpr:.0e}".replace("e-0", "e-")


def score(found: dict) -> str:
    """Equal error rate / TPR at FPR 1e-3 / rank-1 in percent, a dash where there are no pairs."""
    return " / ".join(f"{100 * found[k]['mean']:.1f}" if k in found else "-"
                      for k in ("eer", "tpr@0.001", "rank1"))


def results(summary: dict) -> str:
    """One row a protocol, one column a network."""
    networks = {label: summary["networks"][label] for label in NAMES
                if label in summary["networks"]}
    lines = ["| protocol | " + " | ".join(f"{NAMES[label]}, %" for label in networks) + " |",
             "|" + " --- |" * (1 + len(networks))]
    lines += [f"| {name} | " + " | ".join(score(found[name]) for found in networks.values()) + " |"
              for name in summary["protocols"]]
    return "\n".join(lines)


def protocols(summary: dict) -> str:
    """The block of data/README.md: what each protocol is, and what the networks make of it."""
    labels = [label for label in NAMES if label in summary["networks"]]
    lines = ["| protocol | stands for | persons x pictures | genuine pairs | impostor pairs | "
             "FPRs | " + " | ".join(NAMES[label] for label in labels) + " |",
             "|" + " --- |" * (6 + len(labels))]
    for name, pairs in summary["protocols"].items():
        stands = PHOTOGRAPHS if name == "orl" else PROTOCOLS[name]["stands_for"]
        rates = f"to {rate(min(pairs['fprs']))}" if pairs["fprs"] else "none"
        scores = [score(summary["networks"][label][name]) for label in labels]
        lines.append(f"| {name} | {stands} | {size(name)} | {pairs['genuine']:,} | "
                     f"{pairs['impostor']:,} | {rates} | " + " | ".join(scores) + " |")
    seeds = len(summary["student_seeds"])
    lines += ["", "A network's column: equal error rate / TPR at FPR 1e-3 / rank-1, in percent; "
              f"ir_student: mean of {seeds} seed{'s' * (seeds != 1)}. FPRs: down to the one at "
              "which ten impostor pairs lie above the threshold."]
    return "\n".join(lines) + "\n"


def card(summary: dict) -> str:
    """The model card of the teacher, Markdown."""
    teacher, worth = summary["teacher"], summary["worth_learning_from"]
    cell, first = teacher["cell"], next(iter(summary["protocols"]))
    return CARD.format(
        parameters=teacher["parameters"], D=cell["embedding_size"], bytes=teacher["bytes"] / 1e6,
        C=cell["world"]["identities"], pictures=cell["world"]["per_identity"],
        seed=cell["world"]["seed"], world=summary["world"], first=first,
        cosine=summary["networks"][cell["network"]][first]["mean_cosine"]["mean"],
        epochs=cell["epochs"], batch=cell["batch_size"], lr=cell["lr"], run=cell["seed"],
        edge=", at the edge of what was tried" * summary["lr_at_the_edge_of_the_search"],
        seeds=len(summary["student_seeds"]), table=results(summary), compared=worth["protocol"],
        people=worth["people"],
        fpr=rate(worth["fpr"]), estimate=100 * worth["estimate"], low=100 * worth["low"],
        high=100 * worth["high"],
        side="above" if worth["estimate"] > worth["threshold"] else "below",
        least=100 * worth["threshold"], verdict=worth["verdict"],
        cell=cell["name"], hash=teacher["hash"])


def main() -> None:
    home = kdlab.home()
    summary = kdlab.stored("teacher").summary
    if summary is None:
        raise SystemExit("data/results/teacher has no summary; run `kdlab study teacher`")
    (home / "data" / "teachers" / "ir_teacher.md").write_text(card(summary))
    readme = home / "data" / "README.md"
    text, found = BLOCK.subn(lambda m: m[1] + protocols(summary) + m[2], readme.read_text())
    if not found:
        raise SystemExit(f"{readme} has no block <!-- protocols --> to <!-- /protocols -->; add it")
    readme.write_text(text)


if __name__ == "__main__":
    main()
