"""The shape of an embedding: measures where it lives, and pictures of it in two dimensions.

Embeddings are compared by cosine, so all of this is about unit rows, whose squared distance is
2 - 2 cos. A picture (PCA, t-SNE, UMAP) is drawn from the same rows. It is for looking: every
measure here takes the embedding, or the embedding and the picture together, and none the picture
alone.

Hubs: Radovanovic, Nanopoulos, Ivanovic, "Hubs in Space", JMLR 11, 2010, N_k and its skewness.
Alignment and uniformity: Wang and Isola, "Understanding Contrastive Representation Learning through
Alignment and Uniformity on the Hypersphere", ICML 2020, section 4.1.
"""

import numpy as np
from scipy import linalg, spatial, stats
from threadpoolctl import threadpool_limits

from kdlab.cloud import Cloud
from kdlab.neighbours import nearest

KINDS = ("pca", "tsne", "umap")


def picture(x: np.ndarray, kind: str = "tsne", seed: int = 0, **options) -> np.ndarray:
    """(N, D) rows -> (N, 2) coordinates without a unit.

    kind: "pca"; "tsne", scikit-learn's defaults, with a perplexity of 30 or a third of the points;
    "umap", its defaults, on the exact neighbours of `kdlab.neighbours`, one thread.   options: of
    scikit-learn's TSNE or of UMAP, which is imported at the first call (some 10 to 30 s: it
    compiles itself).   ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a picture is one of {', '.join(KINDS)}, not {kind!r}")
    # One thread repeats; and UMAP's compiler leaves OpenMP at as many threads as there are cores,
    # which wait for one another in every later step of t-SNE, for seconds on a busy machine.
    with threadpool_limits(1, "openmp"):
        return {"pca": _pca, "tsne": _tsne, "umap": _umap}[kind](x, seed, **options)


def _pca(x: np.ndarray, seed: int, **options) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=seed, **options).fit_transform(x)


def _tsne(x: np.ndarray, seed: int, **options) -> np.ndarray:
    from sklearn.manifold import TSNE

    given = {"perplexity": min(30, (len(x) - 1) / 3)} | options
    return TSNE(random_state=seed, **given).fit_transform(x)


def _umap(x: np.ndarray, seed: int, n_neighbors: int = 15, **options) -> np.ndarray:
    """UMAP on neighbours found here: its own search compiles twice as long and is approximate."""
    import warnings

    k = min(n_neighbors, len(x))  # of UMAP's neighbours the first is the point itself
    found = nearest(Cloud(x), k - 1)
    own = np.arange(len(x))[:, None]
    known = (np.hstack([own, found.indices]), np.hstack([0.0 * own, found.distances]), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of given neighbours, and of a seed that means one thread
        from umap import UMAP

        return UMAP(n_neighbors=k, random_state=seed, n_jobs=1, precomputed_knn=known,
                    **options).fit_transform(x)  # fmt: skip


def neighbours_kept(x: np.ndarray, y: np.ndarray, k: int = 10) -> np.ndarray:
    """(N,) share of each point's k nearest in x (N, D) that are among its k nearest in y (N, E).

    The same either way round. 1: all; k / (N - 1): what chance keeps.
    """
    one, other = (nearest(Cloud(np.asarray(part)), k).indices for part in (x, y))
    return (one[:, :, None] == other[:, None, :]).sum((1, 2)) / k


def turned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) share of the pairs j, k of which x says "j is nearer to i" and y "k is nearer to i".

    x: (N, D), y: (N, E).   Half is what chance gives. Kendall's tau of two lists of distances, as
    a share: (1 - tau) / 2.
    """
    one, other = (spatial.distance.squareform(spatial.distance.pdist(part)) for part in (x, y))
    rows = [np.delete(np.stack([a, b]), i, 1) for i, (a, b) in
            enumerate(zip(one, other, strict=True))]
    return np.array([(1 - stats.kendalltau(a, b).statistic) / 2 for a, b in rows])


def onto(target: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """x (N, D) moved, turned, mirrored and scaled onto target (N, D), and what is left over.

    The second value is scipy's disparity: the share of the target's spread about its middle that
    the moved x does not reproduce, 0 to 1; the same with both exchanged.
    """
    middle = target.mean(0)
    a, b = target - middle, x - x.mean(0)
    rotation, scale = linalg.orthogonal_procrustes(b, a)
    moved = b @ rotation * (scale / (b**2).sum())
    return moved + middle, float(((a - moved) ** 2).sum() / (a**2).sum())


def occurrences(x: np.ndarray, k: int = 10, labels: np.ndarray | None = None) -> np.ndarray:
    """(N,) in how many of the others' lists of k nearest each row of x (N, D) stands: N_k.

    labels: (N,); a list then holds other people's pictures only. The mean is k whatever the
    embedding; its skewness (`scipy.stats.skew`) is the usual measure of hubs. Holds all pairs: for
    sets of a few thousand pictures.   ValueError where somebody has fewer than k others.
    """
    similarity = x @ x.T - (x**2).sum(1) / 2  # a row's order is that of its distances
    if labels is None:
        labels = np.arange(len(x))
    similarity[labels[:, None] == labels] = -np.inf
    if np.isfinite(similarity).sum(1).min() < k:
        raise ValueError(f"k = {k} is more than the pictures of others that there are")
    lists = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return np.bincount(lists.ravel(), minlength=len(x))


def alignment(x: np.ndarray, labels: np.ndarray, alpha: float = 2) -> float:
    """Mean of |a - b|^alpha over pairs of one person: 0 is best.   x: (N, D) unit rows."""
    distance = spatial.distance.pdist(x)
    i, j = np.triu_indices(len(x), 1)
    return float((distance[labels[i] == labels[j]] ** alpha).mean())


def uniformity(x: np.ndarray, t: float = 2) -> float:
    """Log of the mean of exp(-t |a - b|^2) over all pairs: the lower, the evener.

    x: (N, D) unit rows.   0: all in one point. Even on a sphere of many dimensions: little above
    -2 t, since nearly all squared distances are then 2.
    """
    return float(np.log(np.exp(-t * spatial.distance.pdist(x) ** 2).mean()))
