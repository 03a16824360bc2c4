"""Pure estimators: arrays and networks in, records out; no folder, no store."""
