"""Faces in: aligned sets, photographs, samplers, batches, a teacher's cached embeddings."""

from kdlab.data.batches import Batch, Batches, OnDisk
from kdlab.data.bins import Pairs, read_bin
from kdlab.data.cifar import Cifar10, read_cifar10
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.folder import ImageFolder
from kdlab.data.listed import celeba, utkface
from kdlab.data.orl import load_orl
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.samplers import GroupBalancedSampler, PairSampler

__all__ = ["Batch", "Batches", "Cifar10", "EmbeddingCache", "FaceSet", "GroupBalancedSampler",
           "ImageFolder", "OnDisk", "PairSampler", "Pairs", "RecordIOFaces", "celeba",
           "embed_set", "load_orl", "read_bin", "read_cifar10", "utkface"]
