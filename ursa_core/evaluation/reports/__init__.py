"""Reports: intervals, comparisons, plots, the page."""
