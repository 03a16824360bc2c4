"""From stored results to tables, figures and a report's page; without torch and h5py."""
