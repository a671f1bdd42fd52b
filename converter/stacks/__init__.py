"""TIFF stacks: which files, planes, axes and channels there are, and the voxels of any box of them."""
