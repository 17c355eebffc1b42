"""The same clients and strategies on real devices: Flower's SuperLink and SuperNodes.

`server_app` and `client_app` are the two components that Flower starts; ``python -m
fedlabels.deploy`` makes keys and connections and examines a device. Nothing here needs Ray, and
what runs on a device does not need Hydra either.
"""
