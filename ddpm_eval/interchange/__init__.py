"""Other projects' models: import and export."""
