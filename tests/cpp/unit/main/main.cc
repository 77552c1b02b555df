// The entry of every test in unit/, compiled without its instruction set: here a CPU that lacks it can still say so.
#include "check.h"
#include "unit/main/unit_tests.h"

int main(int argc, char** argv) {
  if (!check_isa_usable(SQUEEZEBERT_UNIT_NAME)) return CHECK_SKIPPED;
  return unit_tests(argc, argv);
}
