/* All that our C and C++ tests need of a test framework:
 *
 *   int main(void) {
 *     CHECK(1 + 1 == 2);
 *     CHECK_NEAR(sum, 3.0, 1e-6);
 *     return check_result();
 *   }
 *
 * A failed check prints where and what, and the program goes on. */
#ifndef SQUEEZEBERT_TESTS_CHECK_H
#define SQUEEZEBERT_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "squeezebert.h"

/* What a test returns, and ctest understands, when this machine cannot run it. */
#define CHECK_SKIPPED 77

static int check_failures = 0;

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++check_failures;                                                       \
    }                                                                         \
  } while (0)

/* |got - expected| <= bound; NaN fails. */
#define CHECK_NEAR(got, expected, bound)                                                                     \
  do {                                                                                                       \
    const double check_got = (got), check_expected = (expected), check_bound = (bound);                      \
    if (!(fabs(check_got - check_expected) <= check_bound)) {                                                \
      fprintf(stderr, "%s:%d: %s is %.9g, expected %.9g within %.3g\n", __FILE__, __LINE__, #got, check_got, \
              check_expected, check_bound);                                                                  \
      ++check_failures;                                                                                      \
    }                                                                                                        \
  } while (0)

static inline int check_result(void) {
  if (check_failures > 0) fprintf(stderr, "%d checks failed\n", check_failures);
  return check_failures > 0;
}

/* Whether this CPU can run the ISA; a test compiled for one asks before anything else. */
static inline int check_isa_usable(const char* isa) {
  for (int i = 0; squeezebert_isa_name(i) != NULL; ++i) {
    if (strcmp(squeezebert_isa_name(i), isa) == 0) return 1;
  }
  fprintf(stderr, "skipped: this CPU does not have %s\n", isa);
  return 0;
}

#endif
