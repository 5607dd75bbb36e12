"""Losses: one line each. A loss is a `Loss`: a frozen dataclass that draws what it needs and sums over positions."""

from jaxrec.losses.sampled import BCE, BPR, GBCE, TOP1, BPRMax, SampledSoftmax, TOP1Max
from jaxrec.losses.scalable import SCE
from jaxrec.losses.softmax import Softmax

__all__ = ["BCE", "BPR", "GBCE", "SCE", "TOP1", "BPRMax", "SampledSoftmax", "Softmax", "TOP1Max"]
