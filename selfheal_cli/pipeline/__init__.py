"""The corridor: the one place that knows all rooms.

``prepare`` trains and freezes, ``stream`` walks one batch through the rooms, ``ledger`` writes
down what happened, ``conclude`` adds it up, and ``run`` does these in order.
"""
