"""The paper's experiments over seeds: which trainings run, how they run, and their results.

A study is a list of units. A unit is one training with its measurements: an experiment (a task), an
algorithm and a seed. Each writes its own result file, so a stopped study resumes where it stopped::

    plan         which units a figure needs
    unit         a unit and its files
    performing   one unit from start to result: soft_q (ours) or rivals (Stable-Baselines3)
    tracking     what is recorded during a training
    scheduler    many units, retried when a process dies; local and cluster run them
    statistics, drawing, page    intervals, figures and a page from the results
"""
