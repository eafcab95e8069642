"""The campaigns of benchmarks/robustness.py: one file each, and what they share.

outcome.py says what a campaign is and how a trial may end, processes.py runs the program in forked processes, and
reference.py has the undisturbed run that the others are compared with.
"""
