"""Settings: what a run is told from options, environment and ``selfheal.yaml``, and by whom.

``sources`` reads a file and the variables; each gives a `Layer`. ``resolve`` lays them over one
another and makes a `RunConfig` of them. ``inspection`` and ``scaffold`` write a first file.
"""
