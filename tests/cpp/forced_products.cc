// SQUEEZEBERT_FORCE_PRODUCT and squeezebert_force_product: a format's product is the one last forced, else the one that
// the variable named, also where another format's was forced before anybody read the variable.
#include <stdlib.h>

#include "support.h"

namespace {

using namespace tests;

std::string active(squeezebert_format format) {
  const char* name = nullptr;
  return squeezebert_active_product(format, &name) == SQUEEZEBERT_OK ? name : squeezebert_last_error();
}

void set_variable(const char* names) { setenv("SQUEEZEBERT_FORCE_PRODUCT", names, 1); }

// What is said where the variable names this one.
std::string refusal(const std::string& name) {
  std::string usable;
  for (int i = 0; const char* one = squeezebert_product_name(i); ++i) usable += (i ? ", " : "") + std::string(one);
  return "SQUEEZEBERT_FORCE_PRODUCT: expected a product that this CPU has (" + usable + "), got \"" + name + "\"";
}

// The first test of the program, because the variable is read when a product is first wanted.
void test_forced_before_it_is_read() {
  set_variable("float16_scalar,float32_scalar");
  const std::string best = squeezebert_product_name(0);
  OK(squeezebert_force_product(best.c_str()));
  CHECK(active(SQUEEZEBERT_FLOAT32) == best);
  CHECK(active(SQUEEZEBERT_FLOAT16) == "float16_scalar");
  OK(squeezebert_force_product(nullptr));
  CHECK(active(SQUEEZEBERT_FLOAT32) == "float32_scalar");
}

// A variable of which one name is wrong forces nothing, and fails what needs a product until one is forced.
void test_wrong_name() {
  set_variable("float16_scalar,float32_mmx");
  const std::string text = refusal("float32_mmx");
  const auto refused = [&](squeezebert_format format) { CHECK(active(format) == text); };
  CHECK(squeezebert_force_product(nullptr) == SQUEEZEBERT_UNSUPPORTED_ISA && squeezebert_last_error() == text);
  refused(SQUEEZEBERT_FLOAT32);
  refused(SQUEEZEBERT_FLOAT16);
  OK(squeezebert_force_product("float32_scalar"));
  CHECK(active(SQUEEZEBERT_FLOAT32) == "float32_scalar");
  refused(SQUEEZEBERT_FLOAT16);
  CHECK(squeezebert_force_product(nullptr) == SQUEEZEBERT_UNSUPPORTED_ISA);
  refused(SQUEEZEBERT_FLOAT32);
  set_variable(",");
  CHECK(squeezebert_force_product(nullptr) == SQUEEZEBERT_UNSUPPORTED_ISA && squeezebert_last_error() == refusal(""));
}

}  // namespace

int main() {
  test_forced_before_it_is_read();
  test_wrong_name();
  return check_result();
}
