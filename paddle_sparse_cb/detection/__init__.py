"""PicoDet through `paddle.Model`: the one place that knows PaddleDetection (`ppdet`)."""
