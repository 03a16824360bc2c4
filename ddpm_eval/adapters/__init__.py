"""Any network as a model that can be measured, and the models of other projects as such."""
