"""From a trained network to a file for a device: export, INT8 quantization, Paddle-Lite, MNN, verification.

May import: `errors`, `utils`, `pruning` and `hooks`; never `callbacks`, `detection` or `recipe`.
A new step is a hook in a module of its own here; a new runtime is a subpackage beside `lite`,
and what runs its files on this machine an entry in `runtimes.RUNTIMES`.

The hooks, in the order in which `SparsityCallback(post_train=[...])` takes them: `Export(input_spec)`, optionally
`QuantizeInt8(samples)`, `OptimizeLite()`, `ConvertMNN()`, `verify`, `print_verification`, `fail_on_mismatch`.
"""

from .export import Export
from .lite.optimizer import OptimizeLite
from .mnn.hook import ConvertMNN
from .quantize import QuantizeInt8
from .verify import fail_on_mismatch, print_verification, verify

__all__ = ["ConvertMNN", "Export", "OptimizeLite", "QuantizeInt8", "fail_on_mismatch", "print_verification", "verify"]
