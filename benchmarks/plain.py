"""The plainest form of every loss: its formula written down, with no thought of time or memory.

Each takes (student, teacher, targets, loss), reads centres, weights and settings off the loss, and
returns the sum of its terms.
"""

import itertools
import math

import torch
import torch.nn.functional as F


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def softmax_of(cosine, labels, own, scale=64):
    logits = torch.where(F.one_hot(labels, cosine.shape[1]).bool(), own, cosine)
    return F.cross_entropy(scale * logits, labels)


def arc(embedding, rows, labels, margin):
    cosine = (unit(embedding) @ unit(rows).T).clamp(-1 + 1e-7, 1 - 1e-7)
    return softmax_of(cosine, labels, (cosine.acos() + margin).cos())


def cos(embedding, rows, labels, margin):
    cosine = unit(embedding) @ unit(rows).T
    return softmax_of(cosine, labels, cosine - margin)


def ekd(s, t, y, loss):
    similar = [unit(x.embedding) @ unit(x.embedding).T for x in (s, t)]
    i, j = torch.triu_indices(*similar[0].shape, offset=1)
    same = y.labels[i] == y.labels[j]
    mine, theirs = (m[i, j] for m in similar)
    marks = []
    for values, name in ((mine, "student_thresholds"), (theirs, "teacher_thresholds")):
        negative = values[~same].detach().sort(descending=True).values
        now = torch.stack([negative[int(len(negative) * fpr + 1e-9)] for fpr in loss.fprs])
        if loss.training:
            getattr(loss, name).mul_(loss.momentum).add_((1 - loss.momentum) * now)
        marks.append(getattr(loss, name))
    total = 0
    hardest = mine[~same].argsort(descending=True)[:loss.hard_negatives]
    for weight, a, b in ((loss.positive_weight, mine[same], theirs[same]),
                         (loss.negative_weight, mine[~same][hardest], theirs[~same][hardest])):
        counts = [torch.sigmoid((x[:, None] - mark) / loss.temperature).sum(1)
                  for x, mark in ((a, marks[0]), (b.detach(), marks[1]))]
        total = total + weight * (counts[0] - counts[1]).square().mean()
    return total


def adadistill(s, t, y, loss):
    if loss.training:
        u, v, old = unit(s.embedding).detach(), unit(t.embedding).detach(), loss.centres.clone()
        for b, label in enumerate(y.labels.tolist()):
            w = old[label]
            near = torch.clamp(torch.dot(w, v[b]) / w.norm(), 1e-6, 1)
            alpha = torch.clamp(torch.dot(u[b], v[b]) * near, 1e-6, 1)
            loss.centres[label] = alpha * w + (1 - alpha) * v[b]
    return arc(s.embedding, loss.centres, y.labels, loss.margin)


def shrinkteanet(s, t, y, loss):
    goal, weight, total = unit(t.embedding.detach()), loss.weight, 0
    for k in reversed(range(len(s.features))):
        x = (s.embedding if k == len(s.features) - 1
             else loss.tail(loss.lifts[k](s.features[k]), k + 1).embedding)
        total = total + weight * (1 - (unit(x) * goal).sum(1)).mean()
        weight = weight / 2
    return total


def feature_l2(s, t, y, loss):
    weight, total = loss.weight, 0
    for lift, mine, theirs in reversed([*zip(loss.lifts, s.features, t.features, strict=True)]):
        total = total + weight * (lift(mine) - theirs.detach()).square().sum() / len(mine)
        weight = weight / 2
    return total


def hinton(s, t, y, loss):
    p, q = (F.softmax(x.logits / loss.temperature, 1) for x in (t, s))
    p = p.detach()
    return loss.weight * loss.temperature**2 * (p * (p.log() - q.log())).sum(1).mean()


def attention(s, t, y, loss):
    q = [unit(x.features[-1].square().mean(1).flatten(1)) for x in (s, t)]
    return loss.weight * 0.5 * (q[0] - q[1].detach()).square().mean()


def nst(s, t, y, loss):
    a, b = (F.normalize(x.features[-1].flatten(2), dim=2) for x in (s, t))
    b = b.detach()

    def mean(x, z):  # the (B, C, C', P) tensor
        return (x[:, :, None] * z[:, None]).sum(-1).square().mean()

    return loss.weight * (mean(b, b) + mean(a, a) - 2 * mean(a, b))


def rkd(s, t, y, loss):
    a, b = s.embedding, t.embedding.detach()
    off = ~torch.eye(len(a), dtype=torch.bool, device=a.device)

    def relations(x):
        gap = x[None] - x[:, None]  # (B, B, D)
        distance = gap.square().sum(2).where(off, 1).sqrt().where(off, 0)
        e = F.normalize(gap, dim=2)
        return distance / distance[off].mean(), e @ e.transpose(1, 2)  # (B, B), (B, B, B)

    (d_s, a_s), (d_t, a_t) = relations(a), relations(b)
    return (loss.distance_weight * F.smooth_l1_loss(d_s, d_t)
            + loss.angle_weight * F.smooth_l1_loss(a_s, a_t))


def sp(s, t, y, loss):
    tables = []
    for x in (s.features[-1].flatten(1), t.features[-1].flatten(1).detach()):
        tables.append(unit(x @ x.T))
    return loss.weight * (tables[0] - tables[1]).square().sum() / len(tables[0]) ** 2


def cckd(s, t, y, loss):
    def kernel(x):
        cosine = unit(x) @ unit(x).T
        return math.exp(-2 * loss.gamma) * sum((2 * loss.gamma) ** p / math.factorial(p)
                                               * cosine**p for p in range(loss.order + 1))
    return loss.weight * (kernel(s.embedding) - kernel(t.embedding.detach())).square().mean()


def darkrank(s, t, y, loss):
    scores = []
    for x in (unit(s.embedding), unit(t.embedding.detach())):
        gap = (x[:, None] - x[None]).square().sum(2)
        off = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        scores.append(-loss.alpha * gap.where(off, 1).sqrt().where(off, 0) ** loss.beta)
    total = 0
    for i in range(len(scores[0])):
        others = [j for j in scores[1][i].argsort(descending=True).tolist() if j != i]
        listed = scores[0][i, others[:loss.length]]
        total = total - sum(listed[k] - listed[k:].logsumexp(0) for k in range(len(listed)))
    return loss.weight * total / len(scores[0])


def triplet(s, t, y, loss):
    d, D = ((unit(x)[:, None] - unit(x)[None]).square().sum(2)
            for x in (s.embedding, t.embedding.detach()))
    rows = []
    for a, p in itertools.product(range(len(d)), repeat=2):
        if a != p and y.labels[a] == y.labels[p]:
            rows.append((a, p, int(d[a].masked_fill(y.labels == y.labels[a], 9).argmin())))
    a, p, n = torch.tensor(rows).T
    gap = (D[a, n] - D[a, p]).relu()
    margin = (loss.most - loss.least) / gap.max() * gap + loss.least
    return loss.weight * (d[a, p] - d[a, n] + margin).relu().mean()


def margindistillation(s, t, y, loss):
    c = (unit(t.embedding.detach()) * unit(loss.centres)[y.labels]).sum(1)
    margin = (loss.most - loss.least) / c.max() * c + loss.least
    return arc(s.embedding, loss.centres, y.labels, margin[:, None])


def mfd(s, t, y, loss):
    s, t = s.embedding, t.embedding.detach()

    def squared(x, z):
        return (x[:, None] - z[None]).square().sum(2).clamp(min=1e-12)

    wide = 2 * loss.sigma * squared(t, s).detach().mean()
    total = 0
    for label, group in itertools.product(y.labels.unique(), y.groups.unique()):
        whole, own = t[y.labels == label], s[(y.labels == label) & (y.groups == group)]
        if len(own):
            k = [(-squared(x, z) / wide).exp().mean()
                 for x, z in ((whole, whole), (own, own), (whole, own))]
            total = total + k[0] + k[1] - 2 * k[2]
    return loss.weight / 2 * total


def adversary(s, t, y, loss):
    return sum(F.cross_entropy(loss.adversaries[int(c)](s.logits[y.labels == c]),
                               y.groups[y.labels == c]) for c in y.labels.unique())


def feature_only(s, t, y, loss):
    return loss.weight * (unit(s.embedding) - unit(t.embedding.detach())).square().sum(1).mean()


PLAIN = {
    "ArcFace": lambda s, t, y, loss: arc(s.embedding, loss.weight, y.labels, loss.margin),
    "CosFace": lambda s, t, y, loss: cos(s.embedding, loss.weight, y.labels, loss.margin),
    "CrossEntropy": lambda s, t, y, loss:
        -F.softmax(s.logits, 1)[torch.arange(len(y.labels)), y.labels].log().mean(),
    "EKD": ekd, "AdaDistill": adadistill,
    "ArcDistill": lambda s, t, y, loss: arc(s.embedding, loss.centres, y.labels, loss.margin),
    "CosDistill": lambda s, t, y, loss: cos(s.embedding, loss.centres, y.labels, loss.margin),
    "ShrinkTeaNet": shrinkteanet, "FeatureL2": feature_l2, "FeatureOnly": feature_only,
    "ReverseDistillation": feature_only, "HintonKD": hinton,
    "FitNet": lambda s, t, y, loss: loss.weight * 0.5 * (
        loss.regressor(s.features[-1]) - t.features[-1].detach()).square().mean(),
    "AttentionTransfer": attention, "NST": nst, "RKD": rkd, "SP": sp, "CCKD": cckd,
    "DarkRank": darkrank, "TripletDistillation": triplet,
    "MarginDistillation": margindistillation, "MFD": mfd, "AdversarialDebiasing": adversary,
}
