"""Images and annotations for a detector: data sets, loaders, and samples that come inside packages.

May import `errors`, `utils`, `detection.config` and `detection.network`.
A new annotation format is a module like `coco`, entered in `dataset._FORMATS`; a new sample goes to `samples`.
"""
