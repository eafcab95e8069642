"""Options of a very quick comparison."""

QUICK = {"max_iterations": 4, "sub_iterations": 2, "progress": False, "evaluation_rows": 64}
