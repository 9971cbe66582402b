"""Programs that the local Azure brings itself, as Azure does: they run in its nodes, not in it."""
