"""Files of other exporters beside ours, for comparison."""
