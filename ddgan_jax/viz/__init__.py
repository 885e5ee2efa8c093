"""Draw figures and charts of trained models, and the report page of a run."""
