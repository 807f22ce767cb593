"""The parts of bench/imagenette.py: data, training, validation and the report."""
