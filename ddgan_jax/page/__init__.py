"""`ddgan report`: a run as one HTML page. What its folder tells, and how a page shows it."""
