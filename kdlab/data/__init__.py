"""Faces in: aligned sets, photographs, samplers, batches, a teacher's cached embeddings."""

from kdlab.data.batches import Batch, Batches, OnDisk
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.folder import ImageFolder
from kdlab.data.orl import load_orl
from kdlab.data.recordio import RecordIOFaces
from kdlab.data.samplers import GroupBalancedSampler, PairSampler

__all__ = ["Batch", "Batches", "EmbeddingCache", "FaceSet", "GroupBalancedSampler", "ImageFolder",
           "OnDisk", "PairSampler", "RecordIOFaces", "embed_set", "load_orl"]
