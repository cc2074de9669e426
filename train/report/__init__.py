"""Evaluations to be read: tables in Markdown and LaTeX, and one page of HTML."""
