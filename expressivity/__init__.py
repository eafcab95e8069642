"""Expressivity of networks: which of two families imitates the other better, and related measures."""

from expressivity.comparator import ArchitectureComparator
from expressivity.errors import ExpressivityError
from expressivity.intervals import Interval, confidence_interval
from expressivity.results import ComparisonResult, Estimate, SizeResult
from expressivity.spaces import ArchitecturalSpace

__all__ = [
    "ArchitecturalSpace",
    "ArchitectureComparator",
    "ComparisonResult",
    "Estimate",
    "ExpressivityError",
    "Interval",
    "SizeResult",
    "confidence_interval",
]
