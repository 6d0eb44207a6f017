"""No strategy advances without evidence: gates, trials, verdicts."""
