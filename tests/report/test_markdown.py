from paddle_sparse_cb.report.markdown import report_markdown

REPORT = """\
# mine

|        | model   |   input size |   sparsity |   mAP 0.5:0.95 |   AP50 |   .nb MB |   sparse convolutions |
|--------|---------|--------------|------------|----------------|--------|----------|-----------------------|
| dense  | PicoDet |      320x416 |      0.00% |           30.9 |      - |        - |                     - |
| sparse | PicoDet |      320x416 |     75.01% |           27.6 |   50.0 |     5.41 |            101 of 106 |

Exported checkpoint: best_model (best mAP at the target sparsity)

mAP and AP50 in percent. Paddle 2.6.2, seed 3. The dense `.nb` holds the same weights with dense kernels; its size \
does not depend on the number of zeros.

## Best mAP at each sparsity

|   sparsity |   epoch |   best mAP |
|------------|---------|------------|
|     75.01% |       4 |       27.6 |

## Verification

The zeros, counted again in each file:

- **Exported checkpoint (.pdparams)**: ok. 75.01% of the weights to prune are zero; 75.00% were asked for. All 9 \
tensors are those of the trained network, bit for bit.
"""


def test_the_report_in_markdown(report):
    assert report_markdown(report) == REPORT


def test_sections_without_content_are_left_out(report):
    text = report_markdown({**report, "checks": {}, "evaluations": []})
    assert "##" not in text


def test_a_note_explains_a_missing_dense_row(report):
    text = report_markdown({**report, "rows": report["rows"][1:], "dense_note": "the weights have other classes"})
    assert "| dense" not in text
    assert "\n\nNo dense row: the weights have other classes\n\n" in text
