package com.example.detector;

/** A detector in a .nb file. Not thread-safe. */
public final class Detector implements AutoCloseable {
    /** An object that was found; corners in pixels of the image. */
    public static final class Box {
        public final String label;
        public final float score;
        public final float x1;
        public final float y1;
        public final float x2;
        public final float y2;

        Box(String label, float score, float x1, float y1, float x2, float y2) {
            this.label = label;
            this.score = score;
            this.x1 = x1;
            this.y1 = y1;
            this.x2 = x2;
            this.y2 = y2;
        }
    }

    static {
        System.loadLibrary("detector");
    }

    private long handle;

    /**
     * Loads a model.
     *
     * @param model path of the .nb file
     * @param inferCfg path of infer_cfg.yml, which the export writes
     * @throws IllegalStateException if a file cannot be used
     */
    public Detector(String model, String inferCfg) {
        handle = open(model, inferCfg);
    }

    /**
     * Finds objects, the highest score first.
     *
     * @param pixels 0xAARRGGBB, row by row, as Bitmap.getPixels returns them
     */
    public Box[] detect(int[] pixels, int width, int height) {
        if (handle == 0 || width < 1 || height < 1 || pixels.length < (long) width * height) {
            throw new IllegalStateException("closed, or fewer pixels than width x height");
        }
        return detect(handle, pixels, width, height);
    }

    @Override
    public void close() {
        close(handle);
        handle = 0;
    }

    private static native long open(String model, String inferCfg);

    private static native Box[] detect(long handle, int[] pixels, int width, int height);

    private static native void close(long handle);
}
