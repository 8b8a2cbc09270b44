"""What both Flax faces of the edge share; no Flax here."""
