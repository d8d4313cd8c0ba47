"""Many experiments at once: a grid of configurations, their runs in parallel, and what they say of the claims together.

grid (TOML -> cells) -> plan (cells -> runs) -> local or cluster (runs -> traces) -> results (traces -> a row an
experiment and claim) -> summary (rows -> means, intervals, trends, verdicts)
"""
