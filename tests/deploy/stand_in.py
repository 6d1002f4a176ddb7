"""An Android device for tests: `adb_stand_in.py` as the `adb` on PATH, and the folder that it answers from."""

import json
import sys

PIXEL = "1A051FDF6007RA         device usb:1-3 product:oriole model:Pixel_6 device:oriole transport_id:4"
EMULATOR = "emulator-5554          device product:sdk_gphone64_x86_64 model:sdk_gphone64 device:emu64x transport_id:1"
GETPROP = """[ro.build.version.release]: [13]
[ro.product.cpu.abi]: [x86_64]
[ro.product.cpu.abilist]: [x86_64,arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[sys.multiline]: [first
second]
"""


def script(path, text):
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


class StandIn:
    def __init__(self, folder):
        self.folder = folder
        self.temporary = folder / "root" / "data" / "local" / "tmp"
        self.temporary.mkdir(parents=True)
        (folder / "bin").mkdir()
        script(folder / "bin" / "getprop", f"print(open({str(folder / 'getprop')!r}).read(), end='')")
        self.write(devices=f"List of devices attached\n{EMULATOR}\n", getprop=GETPROP)

    def write(self, **files):
        for name, text in files.items():
            (self.folder / name).write_text(text)

    @property
    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
