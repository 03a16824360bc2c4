"""What is measured, as records, and where it is kept."""
