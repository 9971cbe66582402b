"""Fine-tuning, the same here and on Azure ML: `python -m train RECIPE`."""
