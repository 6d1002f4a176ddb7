"""The part of Android's API (level 28) that `MainActivity.java` uses: no package index has `android.jar`.

What follows states the API, so that the compiler checks names and types. None of it is run.
"""

from pathlib import Path

CLASSES = {
    "android.app.Activity": """public class Activity extends android.content.Context {
        public static final int RESULT_OK = -1;
        protected void onCreate(android.os.Bundle state) {}
        protected void onActivityResult(int request, int result, android.content.Intent data) {}
        public void setContentView(android.view.View view) {}
        public void startActivityForResult(android.content.Intent intent, int request) {}
        public final void runOnUiThread(Runnable action) {} }""",
    "android.content.Context": """public abstract class Context {
        public android.content.res.AssetManager getAssets() { return null; }
        public ContentResolver getContentResolver() { return null; }
        public java.io.File getFilesDir() { return null; } }""",
    "android.content.ContentResolver": "public abstract class ContentResolver {}",
    "android.content.Intent": """public class Intent {
        public static final String ACTION_GET_CONTENT = "android.intent.action.GET_CONTENT";
        public Intent(String action) {}
        public Intent setType(String type) { return this; }
        public android.net.Uri getData() { return null; } }""",
    "android.content.res.AssetManager": """public final class AssetManager {
        public java.io.InputStream open(String name) throws java.io.IOException { return null; } }""",
    "android.graphics.Bitmap": """public final class Bitmap {
        public int getWidth() { return 0; }
        public int getHeight() { return 0; }
        public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {} }""",
    "android.graphics.Canvas": """public class Canvas {
        public Canvas(Bitmap bitmap) {}
        public void drawRect(float left, float top, float right, float bottom, Paint paint) {}
        public void drawText(String text, float x, float y, Paint paint) {} }""",
    "android.graphics.Color": "public class Color { public static final int RED = 0xFFFF0000; }",
    "android.graphics.ImageDecoder": """public final class ImageDecoder implements AutoCloseable {
        public static final int ALLOCATOR_SOFTWARE = 1;
        public abstract static class Source {}
        public static class ImageInfo {}
        public interface OnHeaderDecodedListener {
            void onHeaderDecoded(ImageDecoder decoder, ImageInfo info, Source source); }
        public static Source createSource(android.content.ContentResolver resolver, android.net.Uri uri) {
            return null; }
        public static Bitmap decodeBitmap(Source source, OnHeaderDecodedListener listener)
            throws java.io.IOException { return null; }
        public void setAllocator(int allocator) {}
        public void setMutableRequired(boolean mutable) {}
        @Override public void close() {} }""",
    "android.graphics.Paint": """public class Paint {
        public enum Style { FILL, STROKE }
        public void setColor(int color) {}
        public void setStrokeWidth(float width) {}
        public void setTextSize(float size) {}
        public void setStyle(Style style) {} }""",
    "android.net.Uri": "public abstract class Uri {}",
    "android.os.Bundle": "public final class Bundle {}",
    "android.util.Log": """public final class Log {
        public static int e(String tag, String message, Throwable error) { return 0; } }""",
    "android.view.View": "public class View {}",
    "android.widget.ImageView": """public class ImageView extends android.view.View {
        public ImageView(android.content.Context context) {}
        public void setImageBitmap(android.graphics.Bitmap bitmap) {} }""",
}


def write(folder: Path) -> list[Path]:
    """Writes the source files and returns their paths."""
    paths = []
    for name, source in CLASSES.items():
        package, _, _ = name.rpartition(".")
        path = folder / f"{name.replace('.', '/')}.java"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {package};\n{source}\n")
        paths.append(path)
    return paths
