#!/usr/bin/env python3
"""Takes a picture of a page in a headless Chromium, for the documentation.

python tools/screenshot.py output/NAME/report.html docs/images/report.webp --height 1000
python tools/screenshot.py http://localhost:6006/#custom_scalars docs/images/tensorboard.webp  # TensorBoard runs
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

# No requests but those of the page.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=25000",  # milliseconds for the page's scripts
)


def take(url, target, width, height, top, dark):
    """Writes a picture of a page, from `top` pixels below its upper edge on."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("screenshot: Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.png")
        size = f"--window-size={width},{top + height}"
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", size, scheme, f"--screenshot={file}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
        Image.open(file).convert("RGB").crop((0, top, width, top + height)).save(target, quality=80, method=6)
    print(f"{target}: {target.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", help="an HTML file or a URL")
    parser.add_argument("target", type=Path, help="the picture: .png or .webp")
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--top", type=int, default=0, help="pixels to leave out at the top")
    parser.add_argument("--dark", action="store_true", help="with the dark colors of the page")
    options = parser.parse_args()
    url = options.page if "://" in options.page else Path(options.page).resolve().as_uri()
    options.target.parent.mkdir(parents=True, exist_ok=True)
    take(url, options.target, options.width, options.height, options.top, options.dark)


if __name__ == "__main__":
    main()
