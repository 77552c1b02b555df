// The checksum of the headers of what is packed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace squeezebert {

// Of all that stands before the member `checksum`, a header's last. FNV-1a over words rather than bytes: a call reads
// some 80 headers, and byte by byte they would be a tenth of its overhead. Any change of one word changes the sum.
template <class Header>
uint64_t checksum(const Header& header) {
  static_assert(offsetof(Header, checksum) + sizeof(uint64_t) == sizeof(Header));
  uint64_t words[offsetof(Header, checksum) / sizeof(uint64_t)];
  std::memcpy(words, &header, sizeof words);
  uint64_t hash = 14695981039346656037u;
  for (const uint64_t word : words) hash = (hash ^ word) * 1099511628211u;
  return hash;
}

}  // namespace squeezebert
