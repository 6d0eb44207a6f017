"""The vocabulary, the clock, errors, settings, display and the journal: what everything else stands on."""
