"""What a program or a notebook does with the toolkit; ``import fedlabels`` offers all of it.

``fedlabels.simulate`` runs a setting, ``fedlabels.Run.open`` reads what came out,
``fedlabels.compare`` sets several runs against each other, ``fedlabels.look`` shows who would hold
what. See docs/python.md.
"""
