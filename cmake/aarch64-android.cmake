# Cross-compiles for Android on 64-bit Arm with the NDK that the caller names (a path, or the environment variable):
#   cmake -B build/android -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-android.cmake -DANDROID_NDK=/path/to/ndk
if(NOT ANDROID_NDK)
  set(ANDROID_NDK $ENV{ANDROID_NDK})
endif()
if(NOT EXISTS ${ANDROID_NDK}/build/cmake/android.toolchain.cmake)
  message(FATAL_ERROR "ANDROID_NDK: expected the folder of an Android NDK, got \"${ANDROID_NDK}\"")
endif()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_NDK)
set(ANDROID_ABI arm64-v8a)
set(ANDROID_PLATFORM android-24)
include(${ANDROID_NDK}/build/cmake/android.toolchain.cmake)
