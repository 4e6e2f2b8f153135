"""Tests of the engines: the same records wherever units are computed, whatever befalls their workers."""
