"""The pipeline: the one place that knows the order of the stages.

``prepare`` trains and freezes, ``stream`` takes one batch through the stages, ``record``
writes down what happened, ``runs`` begins, resumes and ends a run, ``offline`` works on what was
recorded.
"""
