"""Where clicks pay most: instances ranked by how likely their masks are wrong."""

from maskfix.triage.run import TriageConfig, triage

__all__ = ["TriageConfig", "triage"]
