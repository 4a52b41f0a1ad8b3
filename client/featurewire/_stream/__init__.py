"""Many images through Predict: from their source to results in order."""
