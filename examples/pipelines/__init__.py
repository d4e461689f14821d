"""The parts of the examples `pipeline_inference.py` and `pipeline_training.py`."""
