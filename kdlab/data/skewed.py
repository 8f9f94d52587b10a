"""Sets in which a group goes with a class more often than chance: CIFAR-10S and its like.

Jung, Lee, Park, Moon, "Fair Feature Distillation for Visual Recognition" (MFD), CVPR 2021: of half
the classes of CIFAR-10 most pictures are made grey, of the other half most keep their colour. A
network learns that grey hints at the first half, and pays on the pictures where it does not. Judged
on every test picture in both domains, with equally many in every cell of class and group.

Differences: the skew of 0.8 is the released code's default, no text at hand states it. Wang et al.
("Towards Fairness in Visual Recognition", CVPR 2020) call another set CIFAR-10S: other classes, a
skew of 0.95, one fixed sample; numbers on the two cannot be compared.
"""

from typing import NamedTuple

import numpy as np

GREY, COLOUR = 0, 1  # the groups, numbered as in MFD's code
SKEW = 0.8  # of a class in its own domain: MFD's code


class Skewed(NamedTuple):
    """pixels: (N, 3, S, S) uint8 RGB.   labels: (N,) int64.   groups: (N,) int64."""

    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def grey(pixels: np.ndarray) -> np.ndarray:
    """Pictures without their colour: (N, 3, S, S) uint8 -> the same shape, three equal channels.

    Pillow's mode "L", to the last bit: L = (19595 R + 38470 G + 7471 B + 32768) >> 16. The
    truncated 0.299 R + 0.587 G + 0.114 B is one level darker on about half of all pixels.
    """
    red, green, blue = pixels.astype(np.uint32).swapaxes(0, 1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return np.repeat(luma[:, None].astype(np.uint8), 3, axis=1)


def skewed(pixels: np.ndarray, labels: np.ndarray, seed: int = 0, skew: float = SKEW) -> Skewed:
    """A training set: of the lower half of the classes a share `skew` grey, of the upper, coloured.

    pixels: (N, 3, S, S) uint8 in colour.   labels: (N,) from 0, an even number of classes.
    skew: 0.5 (group and class are independent) to 1 (one domain a class); the other end, 0, swaps
    the halves.   seed: which pictures; MFD's run seed, so its pattern changes from run to run.
    The pictures stay in their order. ValueError for another skew, an odd number of classes, or
    labels that are not one for each picture.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not 0 <= skew <= 1:
        raise ValueError(f"skew is a share of a class, 0 to 1, not {skew}")
    if len(labels) != len(pixels) or not len(labels) or labels.min() < 0:
        raise ValueError(f"{len(pixels)} pictures want as many labels from 0, one at least, not "
                         f"{len(labels)}")
    classes = int(labels.max()) + 1
    if classes % 2:
        raise ValueError(f"half of the classes is mostly grey, half mostly coloured; {classes} "
                         "cannot be halved")
    order = np.random.RandomState(seed).permutation(len(labels))  # numpy's old one, as released
    groups = np.empty(len(labels), np.int64)
    for c in range(classes):
        own = order[labels[order] == c]
        share = skew if c < classes // 2 else 1 - skew
        first = round(share * len(own))
        groups[own[:first]], groups[own[first:]] = GREY, COLOUR
    made = pixels.copy()
    made[groups == GREY] = grey(pixels[groups == GREY])
    return Skewed(made, labels, groups)


def in_both(pixels: np.ndarray, labels: np.ndarray) -> Skewed:
    """A test set: every picture grey, then every picture in colour; cells equal where classes are.

    pixels: (N, 3, S, S) uint8 in colour.   labels: (N,).   Returns 2N rows.
    """
    labels = np.asarray(labels, dtype=np.int64)
    return Skewed(np.concatenate([grey(pixels), pixels]), np.tile(labels, 2),
                  np.repeat(np.array([GREY, COLOUR]), len(labels)))
