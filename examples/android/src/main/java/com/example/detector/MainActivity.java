package com.example.detector;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Bitmap;
import android.graphics.Canvas;
import android.graphics.Color;
import android.graphics.ImageDecoder;
import android.graphics.Paint;
import android.net.Uri;
import android.os.Bundle;
import android.util.Log;
import android.widget.ImageView;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;

/** Lets the user pick a photograph, and shows it with boxes. */
public final class MainActivity extends Activity {
    private ImageView view;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        view = new ImageView(this);
        setContentView(view);
        startActivityForResult(new Intent(Intent.ACTION_GET_CONTENT).setType("image/*"), 0);
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (result == RESULT_OK && data != null) {
            new Thread(() -> show(data.getData())).start();
        }
    }

    private void show(Uri photograph) {
        try (Detector detector = new Detector(asset("model_sparse.nb"), asset("infer_cfg.yml"))) {
            Bitmap bitmap = // turned as its EXIF orientation says
                    ImageDecoder.decodeBitmap(
                            ImageDecoder.createSource(getContentResolver(), photograph),
                            (decoder, info, source) -> {
                                decoder.setAllocator(ImageDecoder.ALLOCATOR_SOFTWARE);
                                decoder.setMutableRequired(true);
                            });
            int width = bitmap.getWidth();
            int height = bitmap.getHeight();
            int[] pixels = new int[width * height];
            bitmap.getPixels(pixels, 0, width, 0, 0, width, height);
            draw(bitmap, detector.detect(pixels, width, height));
            runOnUiThread(() -> view.setImageBitmap(bitmap));
        } catch (IOException | IllegalStateException error) {
            Log.e("detector", "cannot detect objects", error);
        }
    }

    private static void draw(Bitmap bitmap, Detector.Box[] boxes) {
        Canvas canvas = new Canvas(bitmap);
        Paint paint = new Paint();
        paint.setColor(Color.RED);
        paint.setStrokeWidth(bitmap.getWidth() / 200f);
        paint.setTextSize(bitmap.getWidth() / 30f);
        for (Detector.Box box : boxes) {
            paint.setStyle(Paint.Style.STROKE);
            canvas.drawRect(box.x1, box.y1, box.x2, box.y2, paint);
            paint.setStyle(Paint.Style.FILL);
            canvas.drawText(String.format("%s %.2f", box.label, box.score), box.x1, box.y1, paint);
        }
    }

    /** Copies an asset to a file, which native code can read, and returns its path. */
    private String asset(String name) throws IOException {
        File file = new File(getFilesDir(), name);
        try (InputStream content = getAssets().open(name)) {
            Files.copy(content, file.toPath(), StandardCopyOption.REPLACE_EXISTING);
        }
        return file.getPath();
    }
}
