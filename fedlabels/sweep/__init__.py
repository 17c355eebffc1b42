"""Many settings, one command: cells that are skipped when finished, resumed when killed.

``python run_sim.py -m sweep=smoke`` gives every combination to the launcher of this package, which
runs them side by side on this machine, or on a Ray cluster.
"""
