"""Risk: what an account may do, by rules with dates, and how it is stopped."""
