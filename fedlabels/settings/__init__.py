"""The settings: their schema, their mistakes, their fingerprints, and the page of all of them."""
