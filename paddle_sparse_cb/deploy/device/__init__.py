"""Times `.nb` and `.mnn` files on another device, through the programs of `examples/lite_runner`.

May import: what `deploy` may, and `deploy.lite.nb`; no other module of `deploy`.
A new way to reach a device is a module with a class that has the method `time` of `Runner` and `Adb`.

A runner is a program that takes a model and arguments, and prints a line of JSON for each run and one for the result.
`Runner` starts it by any command, such as one that ends on another machine, and sends it the model:

    options = TimingOptions(inputs=[[1, 3, 320, 320]], threads=4)
    Runner("ssh pi ./lite_runner").time([Path("model_dense.nb"), Path("model_sparse.nb")], options)

`Adb` copies it to an Android device together with the files, runs it there and removes everything again:

    Adb(Path("build/lite_runner"), serial="R58M12ABCDE").time(files, options)

Both run the files alternately, and return a `DeviceTiming` for each: median and spread of the latency, threads, cores,
temperature before and after, device, and the version of the runtime. A `lite_runner` takes `.nb` files, and a
`mnn_runner` takes `.mnn` files.
"""

from .adb import Adb
from .runner import Runner
from .timing import CLUSTERS, DeviceTiming, TimingOptions

__all__ = ["CLUSTERS", "Adb", "DeviceTiming", "Runner", "TimingOptions"]
