"""What other packs and users bring into a workflow: patches, guiders, lists, small ControlNets."""

NODES = {}
