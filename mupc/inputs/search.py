"""stub"""
def infer(model, own=""):
    raise NotImplementedError
