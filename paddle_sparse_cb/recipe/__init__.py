"""Joins the rooms: a YAML file becomes a run, from the data to the report.

May import every other room; only the command line imports this one.
A new step of a run goes into `post_train.py`, a new command into `commands.py`, a new key into `values.py`.
"""
