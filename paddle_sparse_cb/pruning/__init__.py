"""What is pruned, when and how much: plan, schedule, masks and the pruner.

May import `errors` and `utils`.
A new schedule goes into `schedule.py`, a new scope into `distribution.py`, a new rule for layers into `planner.py`.
"""
