"""After the training: export, Paddle-Lite's optimizer, and the check of what came out.

The hooks, in the order in which `SparsityCallback(post_train=[...])` takes them: `Export(input_spec)`,
`QuantizeInt8(samples)` if INT8 is wanted, `OptimizeLite()`, `verify`, `print_verification`, `require`.
"""

from .export import Export
from .lite.optimizer import OptimizeLite
from .quantize import QuantizeInt8
from .verify import print_verification, require, verify

__all__ = ["Export", "OptimizeLite", "QuantizeInt8", "print_verification", "require", "verify"]
