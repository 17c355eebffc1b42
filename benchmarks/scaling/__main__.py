"""Run one case: ``python -m scaling CASE.json``, with the folder above this one on the path."""

from scaling.run import main

main()
