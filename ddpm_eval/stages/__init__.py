"""The measurements of a run, one class for each, and what runs them."""
