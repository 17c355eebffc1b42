"""Tests of the server rules."""
