"""The paper's experiments over seeds: what is run, by whom, and what came out.

A study is a list of units. A unit is one training with its measurements: an experiment (a task), an
algorithm and a seed. Each has a result file of its own, so a stopped study goes on where it was::

    plan         which units a figure needs
    unit         a unit and its files
    performing   one unit from start to result: soft_q (ours) or rivals (Stable-Baselines3)
    tracking     what is noted during a training
    scheduler    many units, retried when a process dies; local and cluster run them
    statistics, drawing, page    what is made of the results
"""
