"""PicoDet through `paddle.Model`: configuration, network, weights, data and metric of PaddleDetection (`ppdet`).

May import `errors` and `utils`; the only room that imports ppdet and pycocotools.
A part of a detector goes here, a workaround of ppdet or Paddle to `compat`, and what an untrusted recipe may name to
`allowlist`.
"""
