"""Images and annotations for a detector: data sets, loaders, and samples that come inside packages.

May import `errors`, `utils`, `detection.config` and `detection.network`.
A new annotation format for a training is a module like `coco`, entered in `dataset._FORMATS`; one that is only
converted by `paddle-sparse init` goes to `convert` and `folders`; a new sample goes to `samples`.
"""
