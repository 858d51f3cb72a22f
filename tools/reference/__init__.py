"""The parts of docs/ that are drawn from the program itself; ``python -m tools.reference`` writes them anew.

A page holds such a part between two comments, ``<!-- from the program: NAME -->`` and ``<!-- end -->``. The pages are
complete in the repository; ``tests/docs/test_reference.py`` refuses one that is out of date.
"""
