"""Tests of the client objectives."""
