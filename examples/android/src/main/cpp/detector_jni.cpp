// The native methods of Detector.java.
#include <jni.h>

#include "lite_detector.h"

namespace {

using detector::LiteDetector;

std::string to_string(JNIEnv* env, jstring text) {
  const char* characters = env->GetStringUTFChars(text, nullptr);
  const std::string copy = characters;
  env->ReleaseStringUTFChars(text, characters);
  return copy;
}

void throw_java(JNIEnv* env, const std::exception& error) {
  env->ThrowNew(env->FindClass("java/lang/IllegalStateException"), error.what());
}

// The text in UTF-8 as a Java string; JNI's own function takes another encoding.
jobject from_utf8(JNIEnv* env, const std::string& text) {
  const jclass type = env->FindClass("java/lang/String");
  const jmethodID create = env->GetMethodID(type, "<init>", "([BLjava/lang/String;)V");
  const jbyteArray bytes = env->NewByteArray(static_cast<jsize>(text.size()));
  env->SetByteArrayRegion(bytes, 0, static_cast<jsize>(text.size()), reinterpret_cast<const jbyte*>(text.data()));
  return env->NewObject(type, create, bytes, env->NewStringUTF("UTF-8"));
}

}  // namespace

extern "C" JNIEXPORT jlong JNICALL Java_com_example_detector_Detector_open(JNIEnv* env, jclass, jstring model,
                                                                          jstring infer_cfg) try {
  return reinterpret_cast<jlong>(new LiteDetector(to_string(env, model), to_string(env, infer_cfg)));
} catch (const std::exception& error) {
  throw_java(env, error);
  return 0;
}

extern "C" JNIEXPORT void JNICALL Java_com_example_detector_Detector_close(JNIEnv*, jclass, jlong handle) {
  delete reinterpret_cast<LiteDetector*>(handle);
}

// Takes pixels as Bitmap.getPixels returns them, 0xAARRGGBB.
extern "C" JNIEXPORT jobjectArray JNICALL Java_com_example_detector_Detector_detect(JNIEnv* env, jclass, jlong handle,
                                                                                   jintArray pixels, jint width,
                                                                                   jint height) try {
  std::vector<jint> colors(static_cast<size_t>(width) * height);
  env->GetIntArrayRegion(pixels, 0, static_cast<jsize>(colors.size()), colors.data());
  if (env->ExceptionCheck()) return nullptr;  // there are fewer pixels
  detector::Image image{height, width, {}};
  image.pixels.reserve(colors.size() * 3);
  for (jint color : colors) {
    for (int shift : {16, 8, 0}) image.pixels.push_back(static_cast<uint8_t>(color >> shift));
  }
  const std::vector<detector::Box> boxes = reinterpret_cast<LiteDetector*>(handle)->detect(image);
  const jclass type = env->FindClass("com/example/detector/Detector$Box");
  const jmethodID create = env->GetMethodID(type, "<init>", "(Ljava/lang/String;FFFFF)V");
  const jobjectArray found = env->NewObjectArray(static_cast<jsize>(boxes.size()), type, nullptr);
  for (size_t index = 0; index < boxes.size(); ++index) {
    const detector::Box& box = boxes[index];
    env->PushLocalFrame(8);
    env->SetObjectArrayElement(found, static_cast<jsize>(index),
                               env->NewObject(type, create, from_utf8(env, box.label), box.score, box.x1, box.y1,
                                              box.x2, box.y2));
    env->PopLocalFrame(nullptr);
  }
  return found;
} catch (const std::exception& error) {
  throw_java(env, error);
  return nullptr;
}
