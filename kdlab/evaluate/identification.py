"""One-to-many identification at rank 1, and a whole protocol judged at once.

A probe is found when its mate scores higher than everyone it competes with. A tie is a miss (the
MegaFace tool calls it a hit): a network that gives all faces one embedding finds nobody.
"""

from collections.abc import Sequence

import numpy as np

from kdlab.evaluate.pairs import (
    checked_rows,
    cross_scores,
    group_scores,
    supported_fprs,
    template_means,
    unit_rows,
)
from kdlab.evaluate.verification import eer, tpr_at_fpr


def rank1(embeddings: np.ndarray, labels: np.ndarray, gallery: np.ndarray, probes: np.ndarray,
          distractors: np.ndarray, counts: Sequence[int] | None = None, block: int = 256
          ) -> dict[int, float]:
    """MegaFace: the share of (probe, mate) pairs in which the mate beats all distractors.

    embeddings: (N, D); labels: (N,); the rest rows. Each picture of the gallery that shows the
    probe's person, not the probe itself, is planted alone among the first `count` distractors:
    gallery = probes averages over all ordered pairs of a person's pictures.
    counts: default 0, 10, 100, ... and all. Returns count -> share (at 0 it is 1). `block` probes
    at a time. Raises ValueError where no probe has a mate, or a distractor is no stranger.
    """
    x, labels = unit_rows(embeddings), np.asarray(labels)
    gallery, probes, distractors = _sides(x, labels, gallery=gallery, probes=probes,
                                          distractors=distractors)
    known = np.isin(labels[distractors], labels[np.concatenate([gallery, probes])])
    if known.any():
        raise ValueError(f"{known.sum()} of {len(distractors)} distractors show a person of the "
                         "gallery or the probes; they must be strangers")
    total = len(distractors)
    if counts is None:
        counts = [0, *(10**k for k in range(1, 10) if 10**k < total), *([total] if total else [])]
    if any(not 0 <= count <= total for count in counts):
        raise ValueError(f"counts must be 0 to {total}, the number of distractors, "
                         f"not {list(counts)}")
    hits, pairs = dict.fromkeys(map(int, counts), 0), 0
    for start in range(0, len(probes), block):
        some = probes[start:start + block]
        mate = (labels[some, None] == labels[gallery]) & (some[:, None] != gallery)
        probe = np.nonzero(mate)[0]
        score, rivals = (x[some] @ x[gallery].T)[mate], x[some] @ x[distractors].T
        pairs += len(probe)
        for count in hits:
            best = rivals[:, :count].max(1, initial=-np.inf)
            hits[count] += int((score > best[probe]).sum())
    if not pairs:
        raise ValueError("no probe has a mate: the gallery holds no other picture of its person")
    return {count: hit / pairs for count, hit in hits.items()}


def rank1_closed(embeddings: np.ndarray, labels: np.ndarray, gallery: np.ndarray,
                 probes: np.ndarray) -> float:
    """Closed set: the share of probes whose nearest picture in the gallery is of their person.

    embeddings: (N, D); labels: (N,); gallery: rows, one for each person; probes: other rows of
    the same persons. Raises ValueError where they are not so.
    """
    return float(_found(unit_rows(embeddings), np.asarray(labels), gallery, probes).mean())


def judge(embeddings: np.ndarray, labels: np.ndarray, a: np.ndarray, b: np.ndarray,
          template: np.ndarray | None = None, distractor: np.ndarray | None = None,
          group: np.ndarray | None = None) -> dict:
    """All a protocol says of embeddings (N, D); the arrays are those of kdlab.world's Protocol.

    Returns {"eer", "genuine", "impostor": numbers of pairs, "tpr": {fpr: TPR, rule "below", where
    10 impostor pairs or more are expected above the threshold}, "rank1"}. rank1: where b is a, the
    share of pictures whose nearest other picture is of the same person; where the sides differ,
    closed-set, the first picture of each person in a being the gallery and b the probes.
    template: (N,), templates take the place of pictures.   distractor: rows; impostor pairs are
    picture x distractor, rank1 is MegaFace's among all, and "rank1_at" has it for each number.
    group: (N,), pairs and galleries within a group; "groups" has the same dict for each alone, the
    rest pools them under one threshold. At most one of the three.   Raises ValueError in words.
    """
    if sum(extra is not None for extra in (template, distractor, group)) > 1:
        raise ValueError("judge takes one of template, distractor and group, not two")
    x, labels = unit_rows(embeddings), np.asarray(labels)
    a, b = _sides(x, labels, a=a, b=b)
    if template is not None:
        template = np.asarray(template)
        means, labels, numbers = template_means(x, labels, template)
        x = unit_rows(means)
        a, b = (np.searchsorted(numbers, np.unique(template[side])) for side in (a, b))
    if distractor is not None:
        everyone = np.union1d(a, b)
        shares = rank1(x, labels, a, b, distractor)
        result = _verified(cross_scores(x, labels, a, b)[0],
                           cross_scores(x, labels, everyone, distractor)[1])
        return result | {"rank1": shares[max(shares)], "rank1_at": shares}
    if group is not None:
        group = np.asarray(group)
        scores = group_scores(x, labels, group, a, b)
        found = {g: _first_found(x, labels, a[group[a] == g], b[group[b] == g]) for g in scores}
        parts = {g: _verified(*scores[g]) | {"rank1": float(found[g].mean())} for g in scores}
        pooled = _verified(*map(np.concatenate, zip(*scores.values(), strict=True)))
        rank = float(np.concatenate(list(found.values())).mean())
        return pooled | {"rank1": rank, "groups": parts}
    result = _verified(*cross_scores(x, labels, a, b))
    return result | {"rank1": float(_first_found(x, labels, a, b).mean())}


def _verified(genuine: np.ndarray, impostor: np.ndarray) -> dict:
    return {"eer": eer(genuine, impostor), "genuine": len(genuine), "impostor": len(impostor),
            "tpr": {fpr: tpr_at_fpr(genuine, impostor, fpr).tpr
                    for fpr in supported_fprs(len(impostor))}}


def _first_found(x: np.ndarray, labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which probes are found, (probes,) bool; see `judge`."""
    if np.array_equal(np.unique(a), np.unique(b)):
        rows = np.unique(a)
        score = x[rows] @ x[rows].T  # a few thousand pictures
        np.fill_diagonal(score, -np.inf)
        same = labels[rows, None] == labels[rows]
        other = np.where(same, -np.inf, score).max(1)
        found = np.where(same, score, -np.inf).max(1) > other
        return found[same.sum(1) > 1]  # a person's only picture has nobody to find
    gallery = a[np.sort(np.unique(labels[a], return_index=True)[1])]
    probes = b[np.isin(labels[b], labels[gallery]) & ~np.isin(b, gallery)]
    return _found(x, labels, gallery, probes)


def _found(x: np.ndarray, labels: np.ndarray, gallery: np.ndarray, probes: np.ndarray
           ) -> np.ndarray:
    """(len(probes),) bool. x: unit rows."""
    gallery, probes = _sides(x, labels, gallery=gallery, probes=probes)
    people = labels[gallery]
    if len(np.unique(people)) < max(len(people), 2):
        raise ValueError("a closed-set gallery holds one picture each of two persons at least, not "
                         f"{len(people)} of {len(np.unique(people))}")
    if not len(probes) or not np.isin(labels[probes], people).all():
        raise ValueError("closed-set identification needs probes, each of a person of the gallery")
    if np.isin(probes, gallery).any():
        raise ValueError("a picture is both probe and gallery; it would find itself")
    score = x[probes] @ x[gallery].T  # one column a person: small
    own = labels[probes, None] == people
    return score[own] > np.where(own, -np.inf, score).max(1)


def _sides(x: np.ndarray, labels: np.ndarray, **rows: np.ndarray) -> list[np.ndarray]:
    if labels.shape != (len(x),):
        raise ValueError(f"{len(x)} embeddings need labels of shape ({len(x)},), "
                         f"not {labels.shape}")
    return [checked_rows(some, len(x), name) for name, some in rows.items()]
