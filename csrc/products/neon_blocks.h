// The sums of a product on NEON by instructions that multiply matrices: SMMLA and BFMMLA add 2 rows x 8 bytes of k
// times 2 columns x 8 bytes of k to a block of 2 x 2 sums. One asm statement per instruction, as in neon_sums.h.
//
// Panels hold 8 bytes of k column by column (k_group), so that 16 bytes are two columns. Rows are prepared in pairs:
// of every 16 bytes of two rows the first row's hold the lower halves of both, the second row's the upper halves. The
// last 8 bytes of an odd number of them, and the last row of an odd number of rows, are left as they are.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "simd/hot_loop.h"
#include "simd/vector.h"

namespace squeezebert::SQUEEZEBERT_UNIT {

// 10 x 8: 20 blocks + 4 pairs of columns + pairs of rows of 32 registers; 20 multiplications ask for 5 loads of rows
// and 2 paired ones of columns. 20, because Neoverse V1 starts four BFMMLAs a cycle and needs five cycles for each.
struct Tile {
  static constexpr int kRows = 10;
  static constexpr int kRowsTogether = 2;
  static constexpr int kVectors = 2;
  static constexpr int kColumns = kVectors * Vec::kLanes;
  static constexpr bool kGeluInMemory = true;
};
constexpr int kBlockBytes = 8;

// `bytes` of each row are whole blocks.
inline void pair_rows(char* left, int64_t rows, int64_t stride, int64_t bytes) {
  for (int64_t r = 0; r + 2 <= rows; r += 2, left += 2 * stride) {
    for (int64_t b = 0; b + 16 <= bytes; b += 16) {
      auto* first = reinterpret_cast<uint64_t*>(left + b);
      auto* second = reinterpret_cast<uint64_t*>(left + stride + b);
      const uint64x2_t x = vld1q_u64(first), y = vld1q_u64(second);
      vst1q_u64(first, vtrn1q_u64(x, y));
      vst1q_u64(second, vtrn2q_u64(x, y));
    }
  }
}

// Two rows' vectors of four columns, and two blocks of 2 x 2: each from the other.
template <class Sum>
inline __attribute__((always_inline)) void swap_rows_and_blocks(Sum& first, Sum& second) {
  Sum low = first, high = first;
  asm("trn1 %0.2d, %1.2d, %2.2d" : "=w"(low.v) : "w"(first.v), "w"(second.v));
  asm("trn2 %0.2d, %1.2d, %2.2d" : "=w"(high.v) : "w"(first.v), "w"(second.v));
  first = low;
  second = high;
}

struct Blocks {
  // Two rows x 8 bytes of k; of one row, with zeros for the second. Pointers stay where they are for a turn: an address
  // that is moved on by its load costs cores two operations more.
  template <bool kPair, int kAt>
  static __attribute__((always_inline)) int8x16_t load_rows(const char* p) {
    int8x16_t x;
    if constexpr (kPair) asm volatile("ldr %q0, [%1, %2]" : "=w"(x) : "r"(p), "i"(kAt));
    if constexpr (!kPair) asm volatile("ldr %d0, [%1, %2]" : "=w"(x) : "r"(p), "i"(kAt));
    return x;
  }
  template <int kAt>
  static __attribute__((always_inline)) void load_columns(const char* p, int8x16_t (&pairs)[4]) {
    int8x16_t a, b, c, d;
    asm volatile("ldp %q0, %q1, [%2, %3]" : "=w"(a), "=w"(b) : "r"(p), "i"(kAt));
    asm volatile("ldp %q0, %q1, [%2, %3]" : "=w"(c), "=w"(d) : "r"(p), "i"(kAt + 32));
    pairs[0] = a;
    pairs[1] = b;
    pairs[2] = c;
    pairs[3] = d;
  }

  template <class Sum>
  static __attribute__((always_inline)) void multiply(Sum (&blocks)[4], int8x16_t rows, const int8x16_t (&columns)[4]) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) blocks[q] = multiply_block(blocks[q], rows, columns[q]);
  }

  // 8 of the 16 bytes of k that stand at kStep: the lower half of every row's from its pair's first row, or the upper
  // from its second.
  template <int kStep, int kHalf, int kRows, class Sum>
  static __attribute__((always_inline)) void half_step(Sum (&blocks)[(kRows + 1) / 2][4],
                                                       const char* const (&rows)[kRows], const char* panel) {
    int8x16_t columns[4];
    load_columns<(2 * kStep + kHalf) * kBlockBytes * Tile::kColumns>(panel, columns);
#pragma GCC unroll 5
    for (int p = 0; p < kRows / 2; ++p) multiply(blocks[p], load_rows<true, 16 * kStep>(rows[2 * p + kHalf]), columns);
    if constexpr (kRows % 2 == 1) {
      multiply(blocks[kRows / 2], load_rows<false, 16 * kStep + 8 * kHalf>(rows[kRows - 1]), columns);
    }
  }
  template <int kStep, int kRows, class Sum>
  static __attribute__((always_inline)) void step(Sum (&blocks)[(kRows + 1) / 2][4], const char* const (&rows)[kRows],
                                                  const char* panel) {
    half_step<kStep, 0, kRows>(blocks, rows, panel);
    half_step<kStep, 1, kRows>(blocks, rows, panel);
  }

  // The last 8 bytes, which are not in pairs.
  template <int kRows, class Sum>
  static __attribute__((always_inline)) void last_half(Sum (&blocks)[(kRows + 1) / 2][4],
                                                       const char* const (&rows)[kRows], const char* panel) {
    int8x16_t columns[4];
    load_columns<0>(panel, columns);
#pragma GCC unroll 5
    for (int p = 0; p < (kRows + 1) / 2; ++p) {
      int8x16_t two = load_rows<false, 0>(rows[2 * p]);
      if (2 * p + 1 < kRows) {
        two = vcombine_s8(vget_low_s8(two), vget_low_s8(load_rows<false, 0>(rows[2 * p + 1])));
      }
      multiply(blocks[p], two, columns);
    }
  }

  template <int kRows>
  static __attribute__((always_inline)) void advance(const char* (&rows)[kRows], const char*& panel, int bytes) {
#pragma GCC unroll 10
    for (int i = 0; i < kRows; ++i) rows[i] += bytes;
    panel += bytes * Tile::kColumns;
  }

  // `bytes` of k, whole blocks of them.
  template <int kRows, class Sum>
  static __attribute__((always_inline)) void run(Sum (&sums)[kRows][2], const void* left, ptrdiff_t stride,
                                                 const void* right, int64_t bytes, const char* ahead,
                                                 ptrdiff_t ahead_step) {
    asm volatile("" ::: "memory");  // the compiler does not see what the loop reads: let it be written by here
    const char* rows[kRows];
    const char* panel = static_cast<const char*>(right);
    Sum blocks[(kRows + 1) / 2][4];
#pragma GCC unroll 10
    for (int i = 0; i < kRows; ++i) {
      rows[i] = static_cast<const char*>(left) + i * stride;
      for (int j = 0; j < 2; ++j) blocks[i / 2][2 * j + i % 2] = sums[i][j];
    }
    if constexpr (kRows % 2 == 1) {
      for (int j = 0; j < 2; ++j) blocks[kRows / 2][2 * j + 1] = sums[kRows - 1][j];  // a row that nobody reads
    }
#pragma GCC unroll 5
    for (int p = 0; p < (kRows + 1) / 2; ++p) {
      for (int j = 0; j < 2; ++j) swap_rows_and_blocks(blocks[p][2 * j], blocks[p][2 * j + 1]);
    }
    for (int64_t turns = bytes / 64; turns > 0; --turns) {
      blocks[0][0] = SQUEEZEBERT_HOT_LOOP("micro-kernel")(blocks[0][0]);
      step<0, kRows>(blocks, rows, panel);
      __builtin_prefetch(ahead, 0, 3);
      step<1, kRows>(blocks, rows, panel);
      step<2, kRows>(blocks, rows, panel);
      __builtin_prefetch(ahead + 2 * ahead_step, 0, 3);
      step<3, kRows>(blocks, rows, panel);
      ahead += 4 * ahead_step;
      advance(rows, panel, 64);
    }
    for (int64_t steps = bytes % 64 / 16; steps > 0; --steps) {
      step<0, kRows>(blocks, rows, panel);
      advance(rows, panel, 16);
    }
    if (bytes % 16 != 0) last_half<kRows>(blocks, rows, panel);
    asm volatile("" ::: "memory");
#pragma GCC unroll 5
    for (int p = 0; p < (kRows + 1) / 2; ++p) {
      for (int j = 0; j < 2; ++j) swap_rows_and_blocks(blocks[p][2 * j], blocks[p][2 * j + 1]);
    }
#pragma GCC unroll 10
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < 2; ++j) sums[i][j] = blocks[i / 2][2 * j + i % 2];
    }
  }
};

}  // namespace squeezebert::SQUEEZEBERT_UNIT
