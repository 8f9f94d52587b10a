"""Faces in: aligned sets, photographs, batches, a teacher's cached embeddings."""

from kdlab.data.batches import Batch, Batches
from kdlab.data.embeddings import EmbeddingCache, embed_set
from kdlab.data.faces import FaceSet
from kdlab.data.orl import load_orl

__all__ = ["Batch", "Batches", "EmbeddingCache", "FaceSet", "embed_set", "load_orl"]
