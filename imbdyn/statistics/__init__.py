"""Pure functions from the results of the ops to the numbers of the trace. NumPy in, NumPy out, float64."""
