"""Classifiers that tell real faces from generated ones, and the analysis that uses them."""
