from . import company, faults

NODE_CLASS_MAPPINGS = {**company.NODES, **faults.NODES}
