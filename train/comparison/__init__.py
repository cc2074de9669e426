"""Comparing methods and scores over seeds: the plan, the runs, the tables."""
