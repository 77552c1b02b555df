/* A plugin of some other program, with the library inside. */
#include "squeezebert.h"

const char* plugin_entry(void);
const char* plugin_entry(void) { return squeezebert_version(); }
