"""Architecture search: spaces, methods, the search itself, and the gap report."""
