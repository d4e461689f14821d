"""The parts of the example `train_digits.py`."""
