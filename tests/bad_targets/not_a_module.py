"""Its factory returns something else."""


def make():
    return {"weight": 1}
