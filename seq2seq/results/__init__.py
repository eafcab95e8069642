"""What a sweep has found, as a page for people: tables with intervals, comparisons, plots."""
