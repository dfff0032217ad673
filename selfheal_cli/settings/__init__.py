"""SETTINGS: what a run is told from options, environment and ``selfheal.yaml``, and by whom.

``document`` reads a file, ``environment`` the variables; each gives a `Layer`. ``settle`` lays them
over one another and makes a `RunConfig` of them. ``look`` and ``draft`` write a first file.
"""
